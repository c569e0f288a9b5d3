"""Room of the choice: which runs are averaged, and where a score is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap, interval
from analysis.stats.ragged_curves import Rule, ScoreCurves
from tdmpc2.envs.tasks import TASKS

Series = tuple[str, ...]
"""Values of `records.SERIES`."""
INTERVAL = ["mean", "low", "high"]
"""Columns of a mean with its interval."""
NEAR = 0.1
"""An evaluation at most this share of a horizon before it is near it."""


@dataclass(frozen=True)
class Group:
    """Tasks whose scores are averaged.

    Attributes:
        name: of the group.
        label: its title in figures.
        tasks: their names.
        horizon: env steps at which scores are read, each task's own budget where that is less;
            None for each task's budget.
    """

    name: str
    label: str
    tasks: tuple[str, ...]
    horizon: int | None = None

    def steps(self, task: str) -> int:
        """Env steps at which the task's score is read."""
        budget = TASKS[task].env_steps
        return budget if self.horizon is None else min(budget, self.horizon)


@dataclass(frozen=True)
class Selection:
    """The runs of one series on the tasks of a group.

    Attributes:
        rows: of `ScoreCurves.runs`, sorted by task.
        strata: `(num_rows,)`, the task of each as 0, 1, …
        tasks: the task of each row.
        seeds: all that occur.
    """

    rows: np.ndarray
    strata: np.ndarray
    tasks: np.ndarray
    seeds: tuple[int, ...]

    @property
    def single(self) -> bool:
        """Whether no task has two runs, so that nothing can be resampled."""
        return len(self.rows) == self.strata[-1] + 1

    @property
    def counts(self) -> tuple[int, str, int, int]:
        """Number of seeds, the seeds, number of tasks, number of runs."""
        return len(self.seeds), joined(self.seeds), int(self.strata[-1]) + 1, len(self.rows)


def select(
    curves: ScoreCurves, tasks: Sequence[str], where: str, problems: list[Problem]
) -> Iterator[tuple[Series, Selection]]:
    """The series that have every one of these tasks.

    Args:
        curves: of all runs.
        tasks: that a series must have.
        where: the group's name, for problems.
        problems: grows by the series that have some of the tasks but lack others.
    """
    among = curves.runs[curves.runs["task"].isin(tasks)]
    for series, runs in among.groupby(SERIES):
        lacking = sorted(set(tasks) - set(runs["task"]))
        if lacking:
            named = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")
            what = f"lacks {len(lacking)} of {len(tasks)} tasks ({named}); not aggregated"
            problems.append(Problem(series_name(*series, where), None, what, "warning"))
            continue
        runs = runs.sort_values(["task", "seed"])
        names = runs["task"].to_numpy()
        strata = np.unique(names, return_inverse=True)[1]
        seeds = tuple(sorted(runs["seed"].unique()))
        yield tuple(map(str, series)), Selection(runs.index.to_numpy(), strata, names, seeds)


def horizon_scores(
    curves: ScoreCurves,
    chosen: Selection,
    group: Group,
    rule: Rule,
    fractions: Sequence[float] = (1.0,),
) -> tuple[np.ndarray, list[str]]:
    """Normalized scores at fractions of the group's horizon.

    A series counts at a horizon only where, in each task, at least one of its runs was evaluated
    near it (see `NEAR`), and the score of an untrained agent, at step 0, never stands for a later
    one: a rule that fills gaps would otherwise compare what was never measured.

    Returns:
        `(num_rows, num_fractions)` scores, NaN where there is none, and a line for each fraction
        at which the series has no evaluation.
    """
    horizons = np.array([group.steps(task) for task in chosen.tasks])
    steps = np.round(horizons[:, None] * np.array(fractions)).astype(int)
    values = curves.values(chosen.rows, steps, rule, normalized=True)
    evaluated = [curves.curves[row].steps for row in chosen.rows]
    before = np.array([last_before(e, s) for e, s in zip(evaluated, steps, strict=True)])
    values[(before <= 0) & (steps > 0)] = np.nan
    near = (before >= (1 - NEAR) * steps) & (before <= steps) & ((before > 0) | (steps == 0))
    reasons = []
    for column, fraction in enumerate(fractions):
        reached = np.zeros(chosen.strata[-1] + 1, bool)
        np.logical_or.at(reached, chosen.strata, near[:, column])
        if not reached.all():
            far = ~reached[chosen.strata]
            values[:, column] = np.nan
            reasons.append(_far_from(chosen, before[:, column], steps[:, column], far, fraction))
    return values, reasons


def last_before(steps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`(num_wanted,)`: the last of a run's evaluated steps that is no later; -1 where none is."""
    ordered = np.sort(steps)
    place = np.searchsorted(ordered, wanted, side="right") - 1
    return np.where(place >= 0, ordered[np.maximum(place, 0)], -1)


def _far_from(
    chosen: Selection, before: np.ndarray, steps: np.ndarray, far: np.ndarray, fraction: float
) -> str:
    """Why a series does not count at a horizon."""
    tasks = sorted(set(chosen.tasks[far]))
    named = ", ".join(tasks[:3]) + (", …" if len(tasks) > 3 else "")
    first = np.flatnonzero(far & (chosen.tasks == tasks[0]))
    last = int(before[first].max())
    at = f"the last one before is at {last:,}" if last > 0 else "there is none before but step 0"
    return (
        f"no evaluation within {NEAR:.0%} of {int(steps[first[0]]):,} env steps in {named} ({at}); "
        f"left out at {fraction:.0%} of the horizon"
    )


def intervals(
    statistic: str, values: np.ndarray, strata: np.ndarray, rule: Rule, bootstrap: Bootstrap
) -> np.ndarray:
    """`(num_checkpoints, 3)`: the statistic with its interval, NaN where it is not taken.

    Args:
        statistic: a name in `bootstrap.STATISTICS`.
        values: `(num_runs, num_checkpoints)`, NaN where a run has none.
        strata: `(num_runs,)`.
        rule: whether single runs may be missing.
        bootstrap: how intervals are drawn.
    """
    there = ~np.isnan(values)
    bounds = np.full((values.shape[1], 3), np.nan)
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        full = len(np.unique(strata[pattern])) == strata[-1] + 1
        if pattern.all() or (full and rule.between == "none"):
            at = which == number
            part = values[np.ix_(pattern, at)]
            bounds[at] = interval(statistic, part, strata[pattern], bootstrap).stacked()
    return bounds


def incomplete(
    steps: np.ndarray, values: np.ndarray, names: Sequence[str], rule: Rule, where: str
) -> list[Problem]:
    """At most one problem, naming the runs that have no value where others have.

    Args:
        steps: `(num_checkpoints,)` env steps, or what to call them.
        values: `(num_runs, num_checkpoints)`.
        names: of the runs.
        rule: nothing is told where it fills nothing in, since the audit lists that.
        where: the series, for the problem.
    """
    missing = np.isnan(values)
    if rule.between == "none" or not missing.any():
        return []
    lacks = []
    for name, lacking in zip(names, missing, strict=True):
        if lacking.any():
            at = steps[lacking]
            span = f"{at[0]}" if len(at) == 1 else f"{at[0]} to {at[-1]}"
            lacks.append(f"{name} lacks {len(at)} ({span})")
    named = "; ".join(lacks[:3]) + (f"; and {len(lacks) - 3} more" if len(lacks) > 3 else "")
    what = f"{missing.any(axis=0).sum()} of {len(steps)} steps not averaged: {named}"
    return [Problem(where, None, what, "warning")]


def run_names(curves: ScoreCurves, chosen: Selection) -> list[str]:
    """Seed and task of each run, for problems."""
    seeds = curves.runs["seed"].to_numpy()[chosen.rows]
    return [f"seed {seed} of {task}" for seed, task in zip(seeds, chosen.tasks, strict=True)]


def series_name(*parts: Any) -> str:
    """Series and task or domain, as named in problems."""
    return "/".join(str(part) for part in parts if part != "")


def joined(values: Any) -> str:
    """Blank-separated values."""
    return " ".join(str(value) for value in values)
