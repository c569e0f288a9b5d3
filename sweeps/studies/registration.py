"""Runs of a study: which were registered before they began, and their time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.records.run_hours import read_hours
from analysis.records.studies import RUN_COLUMNS
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.schemas import Attempt
from tdmpc2.common.system.atomic_files import read_json


def run_table(planned: Sequence[PlannedRun], mark: str, runs: Path) -> pd.DataFrame:
    """Return the runs of a study that have begun, with the columns `RUN_COLUMNS`.

    A run is registered if its first attempt records the hash of the study. Runs that have not
    finished, and those whose records lack it, have no time.

    Args:
        planned: runs of the study.
        mark: hash of the study.
        runs: folder of all runs.
    """
    rows = []
    for run in planned:
        spec, attempts = run.spec, read_json(run.directory / "attempts.json", list[Attempt]) or []
        if not attempts:
            continue
        hours, unit = read_hours(run.directory) or (float("nan"), "")
        place = run.directory.relative_to(runs).as_posix()
        registered = attempts[0].get("study") == mark
        rows.append(
            (spec.method, spec.variant, spec.task, spec.seed, registered, hours, unit, place)
        )
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))
