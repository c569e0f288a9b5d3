"""Reader of multi-task runs, which learn several tasks from a dataset, into one tidy table.

Their scores are recorded per number of updates instead of env steps, and one run covers all tasks
of its task set. Therefore they are never in the same table as single-task runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.csv_lines import count_in, fields_of, number_in, whole_lines
from analysis.records.problems import Problem
from analysis.records.run_reader import LATER_METRICS, METRICS, Run
from tdmpc2.envs.tasks import TASKS

MULTITASK_SERIES = ["method", "variant", "model_size", "task_set", "dataset"]
METRIC_COLUMNS = [*METRICS, *LATER_METRICS]
MULTITASK_TABLE = [
    *MULTITASK_SERIES,
    *("seed", "state", "num_updates", "task"),
    *METRIC_COLUMNS,
    "score",
]
MULTITASK_RUNS = [
    *MULTITASK_SERIES,
    *("seed", "state", "budget", "tasks", "dataset_name", "obs", "commit", "simulators"),
    *("num_parameters", "directory"),
]
_NEEDED = ("num_updates", "task", "score")
_NAMED = 3
"""Maximum number of tasks that a problem lists."""

Row = dict[str, Any]
"""One line of an `eval.csv`, with its line number under `line`."""


@dataclass(frozen=True)
class MultitaskRecords:
    """Records of runs that learn several tasks.

    Attributes:
        table: one evaluation of one task per row, columns `MULTITASK_TABLE`; `score` is normalized
            to 0 to 100, and `dataset` is the checksum of the training dataset.
        runs: one run per row, columns `MULTITASK_RUNS`.
    """

    table: pd.DataFrame
    runs: pd.DataFrame

    def select(
        self,
        *,
        methods: Collection[str] = (),
        variants: Collection[str] = (),
        tasks: Collection[str] = (),
        sizes: Collection[str] = (),
        obs: str = "",
    ) -> MultitaskRecords:
        """Return the records that match all filters; an empty filter matches everything.

        Args:
            methods: method names.
            variants: variant names, without the settings that `load.load` may append.
            tasks: names of task sets, or shell patterns.
            sizes: model sizes, as recorded.
            obs: observation type, `state` or `rgb`.
        """
        matches = [
            (not methods or row.method in methods)
            and (not variants or str(row.variant).split("[")[0] in variants)
            and (not tasks or any(fnmatchcase(str(row.task_set), pattern) for pattern in tasks))
            and (not sizes or row.model_size in sizes)
            and (not obs or row.obs == obs)
            for row in self.runs.itertuples()
        ]
        runs = self.runs.loc[matches]
        keys = [*MULTITASK_SERIES, "seed"]
        return replace(self, table=self.table.merge(runs[keys], on=keys), runs=runs)

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.runs)

    def summary(self) -> str:
        """Return the number of runs of each task set, in one line."""
        counts = self.runs["task_set"].value_counts(sort=False)
        named = ", ".join(f"{count} on {name}" for name, count in counts.items())
        return f"{len(self)} multi-task run{'s' * (len(self) > 1)} ({named})"


def no_multitask() -> MultitaskRecords:
    """Return empty records."""
    return read_multitask([], [])


def read_multitask(runs: Sequence[Run], problems: list[Problem]) -> MultitaskRecords:
    """Read the evaluations of multi-task runs.

    Args:
        runs: facts of the runs, each with a unique series and seed.
        problems: list to which everything that could not be used as it is is appended.
    """
    facts = [{**run, "task_set": run["task"]} for run in runs]
    rows: list[Row] = []
    for run in facts:
        key = {name: run[name] for name in (*MULTITASK_SERIES, "seed", "state")}
        evaluations = _read_evaluations(Path(run["directory"]) / "eval.csv", run["tasks"], problems)
        rows += [{**key, **row} for row in evaluations]
    counts = {"seed": "int64"}
    numbers = dict.fromkeys((*METRIC_COLUMNS, "score"), "float64")
    table = pd.DataFrame(rows, columns=MULTITASK_TABLE)
    return MultitaskRecords(
        table=table.astype({**counts, "num_updates": "int64", **numbers}),
        runs=pd.DataFrame(facts, columns=MULTITASK_RUNS).astype(counts),
    )


def _read_evaluations(path: Path, tasks: Sequence[str], problems: list[Problem]) -> list[Row]:
    """Return the valid lines of an `eval.csv`, in the order of the file.

    Args:
        path: the file.
        tasks: tasks of the run.
        problems: list to which skipped lines are appended, and evaluations in which a task is
            missing or repeated.
    """
    lines = whole_lines(path, problems)
    if not lines:
        return []
    header = lines[0].strip().split(",")
    missing = [name for name in (*_NEEDED, *METRICS) if name not in header]
    if missing:
        problems.append(Problem(str(path), 1, f"missing column {', '.join(missing)}"))
    if not set(_NEEDED).isdisjoint(missing):
        return []
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        what = f"{_some(unknown)}: not in the task table, so the domain is unknown"
        problems.append(Problem(str(path.with_name("spec.json")), None, what, "warning"))
    rows: list[Row] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append({"line": number, **_parse_line(header, line, tasks)})
        except ValueError as error:
            problems.append(Problem(str(path), number, f"{error}; line skipped"))
    _check_evaluations(path, rows, tasks, problems)
    return rows


def _parse_line(header: list[str], line: str, tasks: Sequence[str]) -> Row:
    """Return update, task and metrics of one line; raise ValueError if it is invalid."""
    row = fields_of(header, line)
    if row["task"] not in tasks:
        raise ValueError(f"unknown task {row['task']!r}, not one of the run's {len(tasks)} tasks")
    numbers = {name: number_in(row, name) for name in (*METRIC_COLUMNS, "score") if name in row}
    return {"num_updates": count_in(row, "num_updates"), "task": row["task"], **numbers}


def _check_evaluations(
    path: Path, rows: Sequence[Row], tasks: Sequence[str], problems: list[Problem]
) -> None:
    """Report evaluations in which a task is missing or repeated, at their first line."""
    evaluations: dict[int, list[Row]] = {}
    for row in rows:
        evaluations.setdefault(row["num_updates"], []).append(row)
    lacking: dict[tuple[str, ...], list[Row]] = {}
    for step, own in evaluations.items():
        counts = Counter(row["task"] for row in own)
        repeated = [task for task in tasks if counts[task] > 1]
        if repeated:
            again = next(row for i, row in enumerate(own) if _among(row, own[:i]))
            what = f"evaluation at update {step:,} repeats {_some(repeated)}; resolved by rule="
            problems.append(Problem(str(path), again["line"], what, "warning"))
        absent = tuple(task for task in tasks if not counts[task])
        if absent:
            lacking.setdefault(absent, []).append(own[0])
    for absent, first in lacking.items():
        more = f" and {len(first) - 1} more lack" if len(first) > 1 else " lacks"
        what = (
            f"evaluation at update {first[0]['num_updates']:,}{more} {len(absent)} of "
            f"{len(tasks)} tasks ({_some(absent)}); filled in by rule="
        )
        problems.append(Problem(str(path), first[0]["line"], what, "warning"))


def _among(row: Row, others: Sequence[Row]) -> bool:
    """Return whether one of the other rows has the same task."""
    return any(other["task"] == row["task"] for other in others)


def _some(names: Sequence[str]) -> str:
    """Return the first `_NAMED` names in one line."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
