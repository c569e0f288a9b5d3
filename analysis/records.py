"""Room of the records: a folder of runs in, one tidy table and a list of problems out.

Nothing is dropped, filled or merged silently: whatever cannot be used as it stands
is named with its file and line in `Records.problems`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.problems import Problem
from analysis.run_directory import read_evaluations, read_floors, read_run

SERIES = ["method", "variant", "model_size", "dataset"]
RUN_KEY = [*SERIES, "task", "seed"]
TABLE = [*RUN_KEY, "step", "step_unit", "metric", "value"]
RUNS = [
    *RUN_KEY,
    *("domain", "score", "state", "budget", "budget_unit", "overrides", "commit", "directory"),
]
FLOORS = ["task", "policy", "mean", "sd", "episodes"]

Run = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """What a folder of runs holds.

    Attributes:
        table: tidy, one value a row, columns `TABLE`.
        runs: one run a row, columns `RUNS`; `score` is the name of the task's published
            metric, `variant` may carry settings (see `load`).
        floors: what doing nothing scores, one task and policy a row, columns
            `FLOORS`, in units of the episode return.
        problems: everything that could not be used as it stands.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    floors: pd.DataFrame
    problems: tuple[Problem, ...]

    def select(
        self,
        *,
        methods: Collection[str] = (),
        variants: Collection[str] = (),
        tasks: Collection[str] = (),
    ) -> Records:
        """The part of the records that fits; an empty filter lets everything pass.

        Args:
            methods: method names.
            variants: variant names, without the settings `load` may have appended.
            tasks: task names or shell patterns (`walker-*`).
        """
        fits = [
            (not methods or row.method in methods)
            and (not variants or str(row.variant).split("[")[0] in variants)
            and (not tasks or any(fnmatchcase(str(row.task), want) for want in tasks))
            for row in self.runs.itertuples()
        ]
        runs = self.runs.loc[fits]
        return replace(self, table=self.table.merge(runs[RUN_KEY], on=RUN_KEY), runs=runs)


def load(runs_dir: Path) -> Records:
    """Reads every run below `runs_dir`.

    Runs of one series (method, variant, model size, dataset) whose settings differ are
    told apart by their variant, `default[regression=mse]`. Several runs of the same
    setting, task and seed are all left out, since nothing says which of them is meant.

    Args:
        runs_dir: holds `<method>/<variant>/<task>/seed<k>-<hash>/` and `floors/<task>.json`;
            a folder that is empty or missing gives empty records.
    """
    problems: list[Problem] = []
    directories = [path for path in sorted(runs_dir.glob("*/*/*/seed*")) if path.is_dir()]
    found = [run for path in directories if (run := read_run(path, problems)) is not None]
    _tell_settings_apart(found, problems)
    runs = _without_duplicates(found, problems)
    rows = [
        (*(run[key] for key in RUN_KEY), step, "env_steps", metric, value)
        for run in runs
        for step, metric, value in read_evaluations(run["directory"] / "eval.csv", problems)
    ]
    floors = [
        floor
        for path in sorted(runs_dir.glob("floors/*.json"))
        for floor in read_floors(path, problems)
    ]
    return Records(
        # Types are stated because a table without rows has none of its own.
        table=pd.DataFrame(rows, columns=TABLE).astype(
            {"seed": "int64", "step": "int64", "value": "float64"}
        ),
        runs=pd.DataFrame([[run[key] for key in RUNS] for run in runs], columns=RUNS).astype(
            {"seed": "int64"}
        ),
        floors=pd.DataFrame(floors, columns=FLOORS).astype({"mean": "float64", "sd": "float64"}),
        problems=tuple(problems),
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
