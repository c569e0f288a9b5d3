"""Scores of multi-task agents on their task set, with confidence intervals.

The score of a task set is the mean over its tasks of return / 10 or success in percent, here scaled
to [0, 1]. Each seed is one sample, because the tasks of one agent are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import AGENTS, SERIES
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import EVALUATIONS, simulated, studies_of
from analysis.stats.ragged_curves import ScoreCurves, budget_of
from analysis.stats.rules import RULES, Rule
from analysis.stats.selection import INTERVAL, incomplete, intervals, joined, series_name

_KEY = [*AGENTS, "checksum"]
MULTITASK_CURVES = [
    *_KEY,
    *("step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "num_tasks", "reps", "coverage"),
]
MULTITASK_SCORES = [
    *_KEY,
    *("num_updates", "budget", "value", "low", "high"),
    *("num_seeds", "seeds", "num_tasks", "reps", "coverage"),
]
MULTITASK_TASKS = [
    *_KEY,
    *("task", "num_updates", "value", "low", "high", "untrained"),
    *("num_seeds", "seeds", "reps", "coverage"),
]


@dataclass(frozen=True)
class Agents:
    """The runs of one series on one task set, one per seed.

    Attributes:
        key: values of `AGENTS`, and the checksum of the dataset.
        curves: curves of all runs.
        rows: row numbers in `curves`, `(num_tasks, num_seeds)`, tasks in the order of the task set
            and seeds ascending.
    """

    key: tuple[str, ...]
    curves: ScoreCurves
    rows: np.ndarray

    @property
    def name(self) -> str:
        """Name of the agents in problems."""
        return agents_name(self.key)

    @property
    def runs(self) -> pd.DataFrame:
        """One row of `curves.runs` per seed."""
        return self.curves.runs.loc[self.rows[0]]

    @property
    def tasks(self) -> list[str]:
        """Tasks of the task set, in its order."""
        return self.curves.runs.loc[self.rows[:, 0], "task"].tolist()

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
        return self.curves.grid(self.rows.ravel())

    @cached_property
    def reached(self) -> np.ndarray:
        """Updates up to which each run has a score of every task, `(num_seeds,)`."""
        return self.curves.reached[self.rows].min(axis=0)

    @property
    def end(self) -> int:
        """Last evaluation that all runs have reached, in updates."""
        return int(self.grid[self.grid <= self.reached.min()][-1])

    def values(self, steps: np.ndarray, rule: Rule) -> np.ndarray:
        """Return scores `(num_tasks, num_seeds, num_steps)`, NaN if the rule gives none."""
        values = self.curves.values(self.rows.ravel(), steps, rule, normalized=True)
        return values.reshape(*self.rows.shape, len(steps))

    def bounds(self, values: np.ndarray, rule: Rule) -> np.ndarray:
        """Return the mean over tasks and seeds with its interval, `(num_steps, 3)`.

        Where a seed lacks a task, tasks count as independent samples instead of seeds.

        Args:
            values: scores from `values`.
            rule: treatment of missing and repeated evaluations.
        """
        strata = np.repeat(np.arange(len(self.rows)), len(self.runs))
        bounds = intervals("mean", values.reshape(len(strata), -1), strata, rule)
        means = values.mean(axis=0)  # NaN if any task has none
        whole = ~np.isnan(means).any(axis=0)
        if whole.any():
            one = np.zeros(len(means), int)
            bounds[whole] = intervals("mean", means[:, whole], one, rule)
        return bounds

    def coverage(self, places: slice, rule: Rule, bootstrap: Bootstrap) -> float:
        """Return the measured coverage of the interval of a mean over tasks; NaN if there is none.

        Args:
            places: tasks that are averaged.
            rule: treatment of missing and repeated evaluations.
            bootstrap: number of simulated studies and seed.
        """
        last = self.grid[self.grid <= self.end][-EVALUATIONS:]
        pool = self.values(last[last > 0], rule)[places].mean(axis=0).ravel()
        pool = pool[~np.isnan(pool)]
        if len(self.runs) < 2 or not len(pool):
            return float("nan")
        return simulated("mean", (tuple(pool),), (len(self.runs),), studies_of(bootstrap))


def agents_name(key: Sequence[Any]) -> str:
    """Return the name of a series on a task set in problems, from the values of `AGENTS`."""
    return series_name(*key[1 : len(AGENTS)])


def agents_of(curves: ScoreCurves, problems: list[Problem]) -> Iterator[Agents]:
    """Yield the agents of every series that were evaluated on all of their tasks.

    Args:
        curves: all multi-task runs.
        problems: list to which excluded runs, and series with a single seed, are appended.
    """
    for key, runs in curves.runs[curves.runs["task_set"] != ""].groupby(_KEY):
        name, tasks = agents_name(key), runs["tasks"].iloc[0]
        if len({frozenset(own) for own in runs["tasks"]}) > 1:
            what = f"runs on different tasks under the same name {key[len(SERIES)]}; excluded"
            problems.append(Problem(name, None, what))
            continue
        rows = runs.assign(row=runs.index).pivot(index="task", columns="seed", values="row")
        rows = rows.reindex(tasks)
        missing = rows.isna().sum()
        for seed, count in missing[missing > 0].items():
            what = f"{count} of {len(tasks)} tasks never evaluated; excluded"
            problems.append(Problem(f"{name}, seed {seed}", None, what))
        complete = rows.loc[:, missing == 0].to_numpy(int)
        if complete.shape[1] == 1:
            what = "one seed: its score has no interval"
            problems.append(Problem(name, None, what, "warning"))
        if complete.shape[1]:
            yield Agents(tuple(map(str, key)), curves, complete)


def set_curves(
    curves: ScoreCurves, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every series against the number of updates.

    Args:
        curves: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.

    Returns:
        Columns `MULTITASK_CURVES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for agents in agents_of(curves, problems):
        values = agents.values(agents.grid, rule)
        means = values.mean(axis=0)  # NaN if any task has none
        names = [f"seed {seed}" for seed in agents.seeds]
        problems += incomplete(agents.grid, means, names, rule, agents.name)
        bounds = agents.bounds(values, rule)
        measured = (studies, agents.coverage(slice(None), rule, bootstrap))
        for step, bound, scored in zip(agents.grid, bounds, means.T, strict=True):
            if not np.isnan(bound[0]):
                head = (*agents.key, step, curves.step_unit, "normalized_score", *bound)
                rows.append((*head, *_counts(agents, scored), len(agents.tasks), *measured))
    return pd.DataFrame(rows, columns=MULTITASK_CURVES), tuple(problems)


def final_scores(
    curves: ScoreCurves, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every series at the last update that all of its runs reached.

    Args:
        curves: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.

    Returns:
        Columns `MULTITASK_SCORES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for agents in agents_of(curves, problems):
        problems += _unfinished(agents)
        values = agents.values(np.array([agents.end]), rule)
        (bound,) = agents.bounds(values, rule)
        measured = (studies, agents.coverage(slice(None), rule, bootstrap))
        if not np.isnan(bound[0]):
            scored = values.mean(axis=0)[:, 0]
            head = (*agents.key, agents.end, agents.budget, *bound)
            rows.append((*head, *_counts(agents, scored), len(agents.tasks), *measured))
    return pd.DataFrame(rows, columns=MULTITASK_SCORES), tuple(problems)


def task_scores(
    curves: ScoreCurves, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every task at the end of a series, in the order of the task set.

    Args:
        curves: all multi-task runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.

    Returns:
        Columns `MULTITASK_TASKS`, scores in [0, 1], where `untrained` is the best seed's score
        before the first update, NaN if it was not evaluated; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for agents in agents_of(curves, problems):
        problems += _unfinished(agents)
        values = agents.values(np.array([agents.end]), rule)
        starts = agents.values(np.array([0]), RULES["available"])[..., 0]
        untrained = np.fmax.reduce(starts, axis=1)  # NaN if no seed was evaluated
        one_task = np.zeros(len(agents.runs), int)
        for place, task in enumerate(agents.tasks):
            own, start = values[place], untrained[place]
            measured = (studies, agents.coverage(slice(place, place + 1), rule, bootstrap))
            (bound,) = intervals("mean", own, one_task, rule)
            if not np.isnan(bound[0]):
                head = (*agents.key, task, agents.end, *bound, start)
                rows.append((*head, *_counts(agents, own[:, 0]), *measured))
    return pd.DataFrame(rows, columns=MULTITASK_TASKS), tuple(problems)


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
