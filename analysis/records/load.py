"""Room of the records: a folder of runs in, one tidy table and a list of problems out.

Nothing is dropped, filled or merged silently: whatever cannot be used as it stands
is named with its file and line in `Records.problems`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.cache import read_all
from analysis.records.csv_curves import read_curves
from analysis.records.multitask import MultitaskRecords, no_multitask, read_multitask
from analysis.records.problems import Problem
from analysis.records.run_reader import MULTITASK, Points, Run, read_reference_scores
from analysis.records.tensorboard_sacred import read_sacred, read_tensorboard

SERIES = ["source", "method", "variant", "model_size", "dataset"]
RUN_KEY = [*SERIES, "task", "seed"]
TABLE = [*RUN_KEY, "step", "step_unit", "metric", "value"]
RUNS = [
    *RUN_KEY,
    *("domain", "obs", "score", "state", "budget", "budget_unit", "overrides", "commit"),
    *("simulators", "num_parameters", "directory"),
]
REFERENCE_SCORES = ["task", "policy", "mean", "sd", "episodes"]

PUBLISHED = "published"
"""Source of the paper authors' curves in the tidy table."""
RUNS_SOURCE = "runs"
"""Source of run directories; curves from elsewhere have the name they were loaded by."""


@dataclass(frozen=True)
class Records:
    """What a folder of runs holds.

    Attributes:
        table: tidy, one value a row, columns `TABLE`.
        runs: one run a row, columns `RUNS`; `score` is the name of the task's published
            metric, `variant` may carry settings (see `load`).
        reference_scores: what doing nothing scores, one task and policy a row, columns
            `REFERENCE_SCORES`, in units of the episode return.
        problems: everything that could not be used as it stands.
        multitask: runs that learn several tasks from a dataset; no row of theirs is among the
            above.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    reference_scores: pd.DataFrame
    problems: tuple[Problem, ...]
    multitask: MultitaskRecords = field(default_factory=no_multitask)

    def select(
        self,
        *,
        sources: Collection[str] = (),
        methods: Collection[str] = (),
        variants: Collection[str] = (),
        tasks: Collection[str] = (),
        sizes: Collection[str] = (),
        obs: str = "",
    ) -> Records:
        """The part of the records that fits; an empty filter lets everything pass.

        Args:
            sources: where the runs come from.
            methods: method names.
            variants: variant names, without the settings `load` may have appended.
            tasks: names of tasks or of sets of tasks, or shell patterns (`walker-*`, `mt80`).
            sizes: model sizes, as recorded.
            obs: what the agent sees, `state` or `rgb`.
        """
        fits = [
            (not sources or row.source in sources)
            and (not sizes or row.model_size in sizes)
            and (not obs or row.obs == obs)
            and (not methods or row.method in methods)
            and (not variants or str(row.variant).split("[")[0] in variants)
            and (not tasks or any(fnmatchcase(str(row.task), want) for want in tasks))
            for row in self.runs.itertuples()
        ]
        runs = self.runs.loc[fits]
        multitask = no_multitask()
        if not sources or RUNS_SOURCE in sources:
            multitask = self.multitask.select(
                methods=methods, variants=variants, tasks=tasks, sizes=sizes, obs=obs
            )
        table = self.table.merge(runs[RUN_KEY], on=RUN_KEY)
        return replace(self, table=table, runs=runs, multitask=multitask)


def load(runs_dir: Path) -> Records:
    """Reads every run below `runs_dir`; what did not change since the last time is remembered.

    Runs of one series (method, variant, model size, dataset) whose settings differ are
    told apart by their variant, `default[regression=mse]`. Several runs of the same
    setting, task and seed are all left out, since nothing says which of them is meant.
    Runs that learn several tasks become tables of their own.

    Args:
        runs_dir: holds `<method>/<variant>/<task>/seed<k>-<hash>/` and `floors/<task>.json`;
            a folder that is empty or missing gives empty records.
    """
    problems: list[Problem] = []
    found: list[tuple[Run, Points]] = []
    of_several: list[Run] = []
    for run, points, own in read_all(runs_dir):
        problems += own
        if run is None:
            continue
        run = {"source": RUNS_SOURCE, **run}
        if run["domain"] == MULTITASK:
            of_several.append(run)
        else:
            found.append((run, points))
    _tell_settings_apart([run for run, _ in found], problems)
    _tell_settings_apart(of_several, problems)
    multitask = read_multitask(_without_duplicates(of_several, problems), problems)
    reference_scores = [
        floor
        for path in sorted(runs_dir.glob("floors/*.json"))
        for floor in read_reference_scores(path, problems)
    ]
    return _records(found, reference_scores, problems, multitask)


READERS = {"csv": read_curves, "tensorboard": read_tensorboard, "sacred": read_sacred}
"""By the form of the curves."""


def load_curves(path: Path, source: str, form: str = "csv") -> Records:
    """Reads curves that are not from run directories.

    Args:
        path: a folder, or one CSV file; see `csv_curves.py` and `tensorboard_sacred.py` beside
            this file.
        source: their name in the tidy table.
        form: a key of `READERS`.
    """
    problems: list[Problem] = []
    return _records(READERS[form](path, source, problems), [], problems, no_multitask())


def merge(parts: Sequence[Records]) -> Records:
    """All of them as one.

    Raises:
        ValueError: two hold the same source.
    """
    sources = [source for part in parts for source in part.runs["source"].unique()]
    if len(set(sources)) < len(sources):
        raise ValueError(f"the same source more than once: {sources}")

    def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        filled = [table for table in tables if len(table)]
        return pd.concat(filled, ignore_index=True) if filled else tables[0]

    return Records(
        table=stacked([part.table for part in parts]),
        runs=stacked([part.runs for part in parts]),
        reference_scores=stacked([part.reference_scores for part in parts]),
        problems=tuple(problem for part in parts for problem in part.problems),
        multitask=MultitaskRecords(
            table=stacked([part.multitask.table for part in parts]),
            runs=stacked([part.multitask.runs for part in parts]),
        ),
    )


def _records(
    found: list[tuple[Run, Points]],
    reference_scores: list[tuple[Any, ...]],
    problems: list[Problem],
    multitask: MultitaskRecords,
) -> Records:
    """The tables of these runs, of the reference scores beside them, and what was wrong."""
    kept = {id(run) for run in _without_duplicates([run for run, _ in found], problems)}
    chosen = [(run, points) for run, points in found if id(run) in kept]
    runs = pd.DataFrame([[run[key] for key in RUNS] for run, _ in chosen], columns=RUNS)
    blocks = [
        (row, metric, points.steps, values)
        for row, (_, points) in enumerate(chosen)
        for metric, values in points.values.items()
    ]
    lengths = [len(values) for *_, values in blocks]
    rows = np.repeat(np.array([row for row, *_ in blocks], dtype="int64"), lengths)
    table = runs[RUN_KEY].take(rows).reset_index(drop=True)
    none = [np.array([])]
    # Types are stated because a table without rows has none of its own.
    table["step"] = np.concatenate([steps for *_, steps, _ in blocks] or none).astype("int64")
    table["step_unit"] = "env_steps"
    table["metric"] = np.repeat(np.array([metric for _, metric, *_ in blocks], object), lengths)
    table["value"] = np.concatenate([values for *_, values in blocks] or none)
    return Records(
        table=table.astype({"seed": "int64"}),
        runs=runs.astype({"seed": "int64"}),
        reference_scores=pd.DataFrame(reference_scores, columns=REFERENCE_SCORES).astype(
            {"mean": "float64", "sd": "float64"}
        ),
        problems=tuple(problems),
        multitask=multitask,
    )


def _tell_settings_apart(runs: list[Run], problems: list[Problem]) -> None:
    """Appends to `variant` what differs between the settings of one series, in place."""
    series: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        series.setdefault(tuple(run[key] for key in SERIES), []).append(run)
    for members in series.values():
        settings = [_settings(run) for run in members]
        common = set.intersection(*settings)
        for run, setting in zip(members, settings, strict=True):
            own = sorted(setting - common)
            if own:
                run["variant"] += f"[{','.join(own)}]"
        variants = sorted({run["variant"] for run in members})
        if len(variants) > 1:
            where = str(members[0]["directory"].parents[1])
            what = f"runs of different settings, kept apart as {', '.join(variants)}"
            problems.append(Problem(where, None, what, "warning"))


def _settings(run: Run) -> set[str]:
    """The overrides of a run, written as on the command line."""
    return {
        f"{key}={value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"
        for key, value in run["overrides"].items()
    }


def _without_duplicates(runs: list[Run], problems: list[Problem]) -> list[Run]:
    """The runs whose key is theirs alone; the others become problems."""
    by_key: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        by_key.setdefault(tuple(run[key] for key in RUN_KEY), []).append(run)
    for same in by_key.values():
        if len(same) > 1:
            first, *others = (str(run["directory"]) for run in same)
            what = f"same setting, task and seed as {', '.join(others)}; all {len(same)} left out"
            problems.append(Problem(first, None, what))
    return [same[0] for same in by_key.values() if len(same) == 1]
