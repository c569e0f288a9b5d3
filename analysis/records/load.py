"""Loading of all records into one tidy table and a list of problems.

No record is dropped, filled in or merged silently: whatever cannot be used as it is appears with
its file and line in `Records.problems`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.cache import read_all
from analysis.records.csv_curves import read_curves
from analysis.records.curve_checks import MAX_SEEDS
from analysis.records.evaluations import NUM_UPDATES, Points, StepUnit
from analysis.records.problems import Problem
from analysis.records.run_reader import Run, read_reference_scores
from analysis.records.sources import RUNS_SOURCE
from analysis.records.tensorboard_sacred import read_sacred, read_tensorboard
from tdmpc2.common.run.spec import algorithm_settings
from tdmpc2.envs.tasks import TASKS

SERIES = ["source", "method", "variant", "model_size", "dataset"]
AGENTS = [*SERIES, "task_set"]
"""Columns that identify the agents of one series that learned the same tasks."""
RUN_KEY = [*AGENTS, "task", "seed"]
TABLE = [*RUN_KEY, "step", "step_unit", "metric", "value"]
RUNS = [
    *RUN_KEY,
    *("domain", "obs", "score", "state", "budget", "budget_unit", "overrides", "commit"),
    *("simulators", "num_parameters", "directory", "tasks", "step_unit", "dataset_name"),
    *("checksum", "eval_episodes"),
]
REFERENCE_SCORES = ["task", "policy", "mean", "sd", "episodes"]
Found = tuple[Run, Points]
"""A run and its points."""


@dataclass(frozen=True)
class Records:
    """Records from one or several sources.

    A run that learns several tasks has one row in `runs` for each of them, with the name of its
    task set in `task_set`, which is empty for other runs. Its steps are gradient updates
    (`step_unit` is `num_updates`); those of other runs are env steps. Steps of different units are
    never compared: `ScoreCurves` holds curves of one unit.

    Attributes:
        table: tidy table, one value per row, columns `TABLE`.
        runs: one task of a run per row, columns `RUNS`; `score` is the name of the task's published
            metric, `variant` may have settings appended, and `dataset` is a label (see `load`).
        reference_scores: episode returns of uniform random and zero actions, one task and policy
            per row, columns `REFERENCE_SCORES`.
        problems: everything that could not be used as it is.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    reference_scores: pd.DataFrame
    problems: tuple[Problem, ...]

    def select(
        self,
        *,
        sources: Collection[str] = (),
        methods: Collection[str] = (),
        variants: Collection[str] = (),
        tasks: Collection[str] = (),
        sizes: Collection[str] = (),
        obs: str = "",
        step_unit: StepUnit | None = None,
    ) -> Records:
        """Return the records that match all filters; an empty filter matches everything.

        Args:
            sources: names of the sources.
            methods: method names.
            variants: variant names, without the settings that `load` may append.
            tasks: names or shell patterns of tasks and, for multi-task runs, of their task sets
                (`walker-*`, `mt80`).
            sizes: model sizes, as recorded.
            obs: observation type, `state` or `rgb`.
            step_unit: unit of the steps.
        """
        matches = [
            (not sources or row.source in sources)
            and (not sizes or row.model_size in sizes)
            and (not obs or row.obs == obs)
            and (not methods or row.method in methods)
            and (not variants or str(row.variant).split("[")[0] in variants)
            and (not tasks or any(fnmatchcase(name, pattern) for pattern in tasks))
            and (step_unit is None or row.step_unit == step_unit)
            for row, name in zip(self.runs.itertuples(), self.names(), strict=True)
        ]
        runs = self.runs.loc[matches]
        return replace(self, table=self.table.merge(runs[RUN_KEY], on=RUN_KEY), runs=runs)

    def names(self) -> list[str]:
        """Return for each row of `runs` the name of the task or, for multi-task runs, task set."""
        return [task_set or task for task_set, task in self.runs[["task_set", "task"]].to_numpy()]

    def multitask_summary(self) -> str:
        """Return the number of multi-task runs on each task set, empty if there are none."""
        counts = one_per_run(self.runs)["task_set"].value_counts(sort=False)
        named = ", ".join(f"{count} on {name}" for name, count in counts.items())
        return f"{counts.sum()} multi-task run{'s' * (counts.sum() > 1)} ({named})" if named else ""


def one_per_run(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each multi-task run among the rows of `Records.runs`."""
    return runs[runs["step_unit"] == NUM_UPDATES].drop_duplicates([*AGENTS, "seed"])


def load(runs_dir: Path) -> Records:
    """Load every run below `runs_dir`; unchanged runs are taken from the cache.

    Runs of one series (method, variant, model size, dataset) whose settings differ are
    distinguished by their variant, such as `default[regression=mse]`. If several runs have the same
    setting, task and seed, all of them are excluded, since it is ambiguous which one is meant. The
    `dataset` of a multi-task run becomes a label that distinguishes the datasets of one task set,
    empty if there is one dataset only; its checksum moves to `checksum`.

    Args:
        runs_dir: folder that holds `<method>/<variant>/<task>/seed<k>-<hash>/` and
            `floors/<task>.json`; if it is empty or missing, the records are empty.
    """
    problems: list[Problem] = []
    found = read_runs(runs_dir, problems)
    distinguish([run for run, _ in found], problems)
    return to_records(found, read_references(runs_dir, problems), problems)


def read_runs(runs_dir: Path, problems: list[Problem]) -> list[Found]:
    """Read every run below a folder; what cannot be used is appended to `problems`."""
    found: list[Found] = []
    for run, points, new_problems in read_all(runs_dir):
        problems += new_problems
        if run is not None:
            found.append(({"source": RUNS_SOURCE, **run}, points))
    return found


def read_references(runs_dir: Path, problems: list[Problem]) -> list[tuple[Any, ...]]:
    """Read the reference scores of a folder of runs as rows with columns `REFERENCE_SCORES`."""
    return [
        row
        for path in sorted(runs_dir.glob("floors/*.json"))
        for row in read_reference_scores(path, problems)
    ]


def distinguish(runs: list[Run], problems: list[Problem]) -> None:
    """Give other settings another `variant`, and other datasets labels, as described in `load`.

    Args:
        runs: all runs that are shown together; changed in place.
        problems: list to which variants with several settings are appended.
    """
    _distinguish_settings(runs, problems)
    _label_datasets(runs)


READERS = {"csv": read_curves, "tensorboard": read_tensorboard, "sacred": read_sacred}
"""Reader by format of the curves."""


def load_curves(
    path: Path, source: str, form: str = "csv", *, tasks: Collection[str] = ()
) -> Records:
    """Load curves that do not come from run directories.

    Args:
        path: a folder, or one CSV file; see `csv_curves.py` and `tensorboard_sacred.py`.
        source: name of the source in the tidy table.
        form: format, a key of `READERS`.
        tasks: read only the files of these tasks in the layout of the released curves; all if
            empty.
    """
    problems: list[Problem] = []
    if tasks:
        return to_records(read_curves(path, source, problems, tasks), [], problems)
    return to_records(READERS[form](path, source, problems), [], problems)


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of tables with equal columns; types may differ where values are missing."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return tables[0]
    types = pd.DataFrame([table.dtypes for table in filled])
    mixed = types.columns[types.nunique() > 1]
    parts = [table.astype({column: object for column in mixed}) for table in filled]
    return pd.concat(parts, ignore_index=True).infer_objects()


def merge(parts: Sequence[Records]) -> Records:
    """Merge records of different sources.

    Raises:
        ValueError: If two of them have a source in common.
    """
    sources = [source for part in parts for source in part.runs["source"].unique()]
    if len(set(sources)) < len(sources):
        raise ValueError(f"the same source more than once: {sources}")

    return Records(
        table=stacked([part.table for part in parts]),
        runs=stacked([part.runs for part in parts]),
        reference_scores=stacked([part.reference_scores for part in parts]),
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def to_records(
    found: list[Found],
    reference_scores: list[tuple[Any, ...]],
    problems: list[Problem],
) -> Records:
    """Return the tables of runs.

    Args:
        found: runs with distinct settings (see `distinguish`), and their points. Runs with the same
            key are all left out, as are further seeds than the first `MAX_SEEDS`.
        reference_scores: rows with columns `REFERENCE_SCORES`.
        problems: problems so far; what is left out is appended.
    """
    unique = without_duplicates([run for run, _ in found], problems)
    kept = {id(run) for run in _first_seeds(unique, problems)}
    chosen = [row for run, points in found if id(run) in kept for row in _by_task(run, points)]
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
    table["step_unit"] = runs["step_unit"].take(rows).to_numpy()
    table["metric"] = np.repeat(np.array([metric for _, metric, *_ in blocks], object), lengths)
    table["value"] = np.concatenate([values for *_, values in blocks] or none)
    return Records(
        table=table.astype({"seed": "int64"}),
        runs=runs.astype({"seed": "int64"}),
        reference_scores=pd.DataFrame(reference_scores, columns=REFERENCE_SCORES).astype(
            {"mean": "float64", "sd": "float64"}
        ),
        problems=tuple(problems),
    )


def _by_task(run: Run, points: Points) -> Iterator[tuple[Run, Points]]:
    """Yield a run once for each of its tasks, with the points of that task."""
    if not run["task_set"]:
        yield run, points
        return
    for place, task in enumerate(run["tasks"]):
        domain = TASKS[task].domain if task in TASKS else "other"
        yield {**run, "task": task, "domain": domain}, points.of_task(place)


def _label_datasets(runs: list[Run]) -> None:
    """Move the checksum of each dataset to `checksum`, and put a label in its place.

    The label is empty if all runs on a task set have the same dataset. Otherwise it is the name of
    the dataset, followed by the first digits of the checksum unless the name is unique.
    """
    names: dict[str, dict[str, str]] = {}
    for run in runs:
        run["checksum"] = run["dataset"]
        names.setdefault(run["task_set"], {}).setdefault(run["dataset"], run["dataset_name"])
    for run in runs:
        known = names[run["task_set"]]
        name = known[run["checksum"]]
        unique = name and list(known.values()).count(name) == 1
        label = name if unique else f"{name} {run['checksum'][:8]}".strip()
        run["dataset"] = label if len(known) > 1 else ""


def _distinguish_settings(runs: list[Run], problems: list[Problem]) -> None:
    """Append to `variant`, in place, the settings that differ within a series."""
    series: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        series.setdefault(tuple(run[key] for key in SERIES), []).append(run)
    for members in series.values():
        settings = [settings_of(run["overrides"]) for run in members]
        common = set.intersection(*settings)
        for run, setting in zip(members, settings, strict=True):
            distinct = sorted(setting - common)
            if distinct:
                run["variant"] += f"[{','.join(distinct)}]"
        variants = sorted({run["variant"] for run in members})
        if len(variants) > 1:
            where = str(members[0]["directory"].parents[1])
            what = f"runs with different settings, distinguished as {', '.join(variants)}"
            problems.append(Problem(where, None, what, "warning"))


def settings_of(overrides: Mapping[str, Any]) -> set[str]:
    """Return the overrides of a run as command-line arguments, but for the precision."""
    return {
        f"{key}={value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"
        for key, value in algorithm_settings(overrides).items()
    }


def run_key(run: Run) -> tuple[Any, ...]:
    """Return the values of `RUN_KEY`."""
    return tuple(run[key] for key in RUN_KEY)


def without_duplicates(runs: list[Run], problems: list[Problem]) -> list[Run]:
    """Return the runs with a unique key; the others are excluded and become problems."""
    by_key: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        by_key.setdefault(run_key(run), []).append(run)
    for group in by_key.values():
        if len(group) > 1:
            first, *others = (str(run["directory"]) for run in group)
            what = f"same setting, task and seed as {', '.join(others)}; all {len(group)} excluded"
            problems.append(Problem(first, None, what))
    return [group[0] for group in by_key.values() if len(group) == 1]


def _first_seeds(runs: list[Run], problems: list[Problem]) -> list[Run]:
    """Return the runs of the first `MAX_SEEDS` seeds of each series and task."""
    by_task: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        by_task.setdefault(tuple(run[key] for key in RUN_KEY[:-1]), []).append(run)
    for group in by_task.values():
        if len(group) > MAX_SEEDS:
            first = group[0]
            what = (
                f"{first['method']} has {len(group)} seeds on {first['task']}: only the first "
                f"{MAX_SEEDS} are used (is the column really a seed?)"
            )
            problems.append(Problem(str(first["directory"]), None, what))
    return [
        run
        for group in by_task.values()
        for run in sorted(group, key=lambda run: run["seed"])[:MAX_SEEDS]
    ]
