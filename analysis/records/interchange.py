"""The interchange CSV: `exp_name,env_name,seed,metric,env_step,value`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.records.field_results import Series
from tdmpc2.common.system.atomic_files import write_atomic
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import SUITES, TASKS

HEADER = ("exp_name", "env_name", "seed", "metric", "env_step", "value")
NUM_TASKS = len(SUITES["all104"])
METRICS = {"return": "avg_return", "success": "avg_success"}


def write_interchange(series: Iterable[Series], path: Path) -> int:
    """Write curves of single seeds in the interchange format; return the number of curves.

    Args:
        series: the curves.
        path: file to write.

    Raises:
        UserError: Two curves have the same method, task and seed, which would become one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    sources: dict[tuple[str, str, int | None], str] = {}
    for one in series:
        key = (one.method, one.task, one.seed)
        if key in sources:
            what = (
                f"{one.method}, {one.task}, seed {one.seed} is in {sources[key]} and {one.source}"
            )
            raise UserError(f"out={path}: {what}; write each of them to a file of its own")
        sources[key] = one.source
        for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True):
            row = (one.method, one.task, one.seed, METRICS[one.kind], step, repr(value))
            writer.writerow(row)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
    return len(sources)


def table_of(series: Iterable[Series]) -> pd.DataFrame:
    """Return a summary: a row per source and method with its numbers of tasks, seeds and steps."""
    found: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        found.setdefault((one.source, one.method), []).append(one)
    rows = []
    for (source, method), curves in found.items():
        tasks, seeds = ({getattr(one, name) for one in curves} for name in ("task", "seed"))
        rated, last = sum(task in TASKS for task in tasks), max(one.steps[-1] for one in curves)
        shown = "means only" if seeds == {None} else str(len(seeds))
        rows.append((source, method, len(tasks), rated, shown, last))
    columns = ["source", "method", "tasks", f"of the {NUM_TASKS}", "seeds", "last step"]
    return pd.DataFrame(rows, columns=columns)
