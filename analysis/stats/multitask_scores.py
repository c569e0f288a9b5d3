"""Scores of multi-task agents on their task set, with confidence intervals.

The score of a task set is the mean over its tasks of return / 10 or success in percent, here scaled
to [0, 1]. As for single tasks, the bootstrap resamples seeds within each task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.multitask import MULTITASK_SERIES, MultitaskRecords
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import ENDED, Curve, budget_of
from analysis.stats.rules import Rule
from analysis.stats.selection import INTERVAL, incomplete, intervals, joined, series_name

MULTITASK_CURVES = [
    *MULTITASK_SERIES,
    *("step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "num_tasks", "reps"),
]
MULTITASK_SCORES = [
    *MULTITASK_SERIES,
    *("num_updates", "budget", "value", "low", "high"),
    *("num_seeds", "seeds", "num_tasks", "reps"),
]
MULTITASK_TASKS = [
    *MULTITASK_SERIES,
    *("task", "num_updates", "value", "low", "high", "untrained"),
    *("num_seeds", "seeds", "reps"),
]


@dataclass(frozen=True)
class Agents:
    """The runs of one series, one per seed.

    Attributes:
        series: values of `MULTITASK_SERIES`.
        runs: rows of the runs, sorted by seed.
        tasks: tasks of the task set, in its order.
        curves: for each task, the curve of each run, with scores in [0, 1].
    """

    series: tuple[str, ...]
    runs: pd.DataFrame
    tasks: tuple[str, ...]
    curves: tuple[tuple[Curve, ...], ...]

    @property
    def name(self) -> str:
        """Name of the series in problems."""
        return series_name(*self.series[:-1])

    @property
    def seeds(self) -> np.ndarray:
        """Seeds of the runs, `(num_seeds,)`."""
        return self.runs["seed"].to_numpy()

    @property
    def budget(self) -> float:
        """Largest budget of the runs, in updates."""
        return max(budget_of(budget) for budget in self.runs["budget"])

    @cached_property
    def grid(self) -> np.ndarray:
        """All numbers of updates at which any run was evaluated, ascending."""
        return np.unique(np.concatenate([c.steps for own in self.curves for c in own]))

    @cached_property
    def reached(self) -> np.ndarray:
        """Updates up to which each run has a score of every task, `(num_seeds,)`."""
        ends = [[max(c.carried_to, c.steps.max()) for c in own] for own in self.curves]
        return np.array(ends).min(axis=0)

    @property
    def end(self) -> int:
        """Last evaluation that all runs have reached, in updates."""
        return int(self.grid[self.grid <= self.reached.min()][-1])

    def values(self, steps: np.ndarray, rule: Rule) -> np.ndarray:
        """Return scores `(num_tasks, num_seeds, num_steps)`, NaN if the rule gives none."""
        return np.array([[rule.at(curve, steps) for curve in own] for own in self.curves])

    def bounds(self, values: np.ndarray, rule: Rule, bootstrap: Bootstrap) -> np.ndarray:
        """Return the mean over tasks and seeds with its interval, `(num_steps, 3)`.

        Args:
            values: scores from `values`.
            rule: treatment of missing and repeated evaluations.
            bootstrap: number of resamples and seed.
        """
        strata = np.repeat(np.arange(len(self.tasks)), len(self.runs))
        return intervals("mean", values.reshape(len(strata), -1), strata, rule, bootstrap)


def agents_of(records: MultitaskRecords, problems: list[Problem]) -> Iterator[Agents]:
    """Yield the agents of every series that were evaluated on all of their tasks.

    Args:
        records: all multi-task runs.
        problems: list to which excluded runs, and series with a single seed, are appended.
    """
    keys = [*MULTITASK_SERIES, "seed"]
    points = {key: own for key, own in records.table.groupby([*keys, "task"], sort=False)}
    for series, runs in records.runs.groupby(MULTITASK_SERIES):
        name = series_name(*series[:-1])
        tasks = tuple(runs["tasks"].iloc[0])
        if len({frozenset(own) for own in runs["tasks"]}) > 1:
            what = f"runs on different tasks under the same name {series[3]}; excluded"
            problems.append(Problem(name, None, what))
            continue
        chosen, curves = [], []
        for run in runs.sort_values("seed").to_dict("records"):
            tables = [points.get((*series, run["seed"], task)) for task in tasks]
            task_curves = [_curve(table, run) for table in tables if table is not None]
            if len(task_curves) == len(tasks):
                chosen.append(run)
                curves.append(task_curves)
            elif task_curves:
                missing = len(tasks) - len(task_curves)
                what = f"{missing} of {len(tasks)} tasks never evaluated; excluded"
                problems.append(Problem(f"{name}, seed {run['seed']}", None, what))
        if len(chosen) == 1:
            what = "one seed: its score has no interval"
            problems.append(Problem(name, None, what, "warning"))
        if chosen:
            by_task = tuple(zip(*curves, strict=True))
            yield Agents(tuple(map(str, series)), pd.DataFrame(chosen), tasks, by_task)


def set_curves(
    records: MultitaskRecords, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every series against the number of updates.

    Args:
        records: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of resamples and seed.

    Returns:
        Columns `MULTITASK_CURVES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for agents in agents_of(records, problems):
        values = agents.values(agents.grid, rule)
        means = values.mean(axis=0)  # NaN if any task has none
        names = [f"seed {seed}" for seed in agents.seeds]
        problems += incomplete(agents.grid, means, names, rule, agents.name)
        bounds = agents.bounds(values, rule, bootstrap)
        for step, bound, scored in zip(agents.grid, bounds, means.T, strict=True):
            if not np.isnan(bound[0]):
                head = (*agents.series, step, "num_updates", "normalized_score", *bound)
                rows.append((*head, *_counts(agents, scored), len(agents.tasks), bootstrap.reps))
    return pd.DataFrame(rows, columns=MULTITASK_CURVES), tuple(problems)


def final_scores(
    records: MultitaskRecords, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every series at the last update that all of its runs reached.

    Args:
        records: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of resamples and seed.

    Returns:
        Columns `MULTITASK_SCORES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for agents in agents_of(records, problems):
        problems += _unfinished(agents)
        values = agents.values(np.array([agents.end]), rule)
        (bound,) = agents.bounds(values, rule, bootstrap)
        if not np.isnan(bound[0]):
            scored = values.mean(axis=0)[:, 0]
            head = (*agents.series, agents.end, agents.budget, *bound)
            rows.append((*head, *_counts(agents, scored), len(agents.tasks), bootstrap.reps))
    return pd.DataFrame(rows, columns=MULTITASK_SCORES), tuple(problems)


def task_scores(
    records: MultitaskRecords, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every task at the end of a series, in the order of the task set.

    Args:
        records: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of resamples and seed.

    Returns:
        Columns `MULTITASK_TASKS`, scores in [0, 1], where `untrained` is the best seed's score
        before the first update, NaN if it was not evaluated; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for agents in agents_of(records, problems):
        problems += _unfinished(agents)
        values = agents.values(np.array([agents.end]), rule)
        starts = [
            [c.values[c.steps == 0].mean() for c in own if 0 in c.steps] for own in agents.curves
        ]
        one_task = np.zeros(len(agents.runs), int)
        for task, own, start in zip(agents.tasks, values, starts, strict=True):
            (bound,) = intervals("mean", own, one_task, rule, bootstrap)
            if not np.isnan(bound[0]):
                head = (*agents.series, task, agents.end, *bound, max(start, default=np.nan))
                rows.append((*head, *_counts(agents, own[:, 0]), bootstrap.reps))
    return pd.DataFrame(rows, columns=MULTITASK_TASKS), tuple(problems)


def _curve(points: pd.DataFrame, run: Mapping[Any, Any]) -> Curve:
    """Return a run's scores on one task; an ended run keeps its last score up to its budget."""
    budget = budget_of(run["budget"])
    carried = budget if run["state"] in ENDED and np.isfinite(budget) else -np.inf
    return Curve(points["num_updates"].to_numpy(), points["score"].to_numpy() / 100, carried)


def _counts(agents: Agents, scored: np.ndarray) -> tuple[int, str]:
    """Return the number of seeds with a score (not NaN), and the seeds."""
    seeds = agents.seeds[~np.isnan(scored)]
    return len(seeds), joined(seeds)


def _unfinished(agents: Agents) -> list[Problem]:
    """Return a problem if some runs have not reached the end of the largest budget."""
    behind = agents.reached < agents.budget
    if not behind.any() or np.isinf(agents.budget):
        return []
    runs = agents.runs.loc[behind]
    named = ", ".join(f"seed {run.seed} ({run.state})" for run in runs.itertuples())
    what = (
        f"budget of {agents.budget:,.0f} updates not reached: {named}; scores are those at update "
        f"{agents.end:,}"
    )
    return [Problem(agents.name, None, what, "warning")]
