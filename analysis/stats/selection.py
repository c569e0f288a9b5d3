"""Selection of the runs and evaluations that enter an average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.evaluations import is_success
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.horizons import Group, last_before
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import NEAR, Rule, is_near
from analysis.stats.t_intervals import t_interval
from tdmpc2.envs.tasks import PAPER_SUITES, TASKS

Series = tuple[str, ...]
"""Values of `load.SERIES`."""
INTERVAL = ["mean", "low", "high"]
"""Columns of a mean with its interval."""


@dataclass(frozen=True)
class Selection:
    """The runs of one series on the tasks of a group.

    Attributes:
        rows: row numbers in `ScoreCurves.runs`, sorted by task.
        strata: task of each row as 0, 1, …, `(num_rows,)`.
        tasks: task name of each row.
        seeds: all seeds that occur.
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
    """Yield the runs of every series that has all of the given tasks.

    Args:
        curves: all runs.
        tasks: tasks that a series must have.
        where: name of the group, for problems.
        problems: list to which series that lack some of the tasks, or normalized scores, are
            appended.
    """
    runs_of_tasks = curves.runs[curves.runs["task"].isin(tasks)]
    for series, runs in runs_of_tasks.groupby(SERIES):
        missing = sorted(set(tasks) - set(runs["task"]))
        if missing:
            named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            what = f"lacks {len(missing)} of {len(tasks)} tasks ({named}); not aggregated"
            problems.append(Problem(series_name(*series, where), None, what, "warning"))
            continue
        unscored = sorted(set(runs.loc[runs["scale"].isna(), "task"]))
        if unscored:
            what = f"returns without score_range in {', '.join(unscored)}; not aggregated"
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
    """Return the normalized scores at fractions of the group's horizon.

    A series is scored at a horizon only if, for each task, at least one of its runs was evaluated
    near it (see `rules.is_near`), and the score of the untrained agent at step 0 never
    represents a later step. Otherwise a rule that fills in missing evaluations would compare scores
    that were never measured.

    Args:
        curves: all runs.
        chosen: runs of one series.
        group: tasks with their horizon.
        rule: treatment of missing and repeated evaluations.
        fractions: fractions of each task's horizon.

    Returns:
        Scores `(num_rows, num_fractions)`, NaN if there is none, and a message for each fraction at
        which the series has no evaluation.
    """
    horizons = np.array([group.steps(task) for task in chosen.tasks])
    steps = np.round(horizons[:, None] * np.array(fractions)).astype(int)
    values = curves.values(chosen.rows, steps, rule, normalized=True)
    evaluated = [curves.curves[row].steps for row in chosen.rows]
    before = np.array([last_before(e, s) for e, s in zip(evaluated, steps, strict=True)])
    values[(before <= 0) & (steps > 0)] = np.nan
    near = is_near(before, steps)
    reasons = []
    for column, fraction in enumerate(fractions):
        reached = np.zeros(chosen.strata[-1] + 1, bool)
        np.logical_or.at(reached, chosen.strata, near[:, column])
        if not reached.all():
            far = ~reached[chosen.strata]
            values[:, column] = np.nan
            reasons.append(_far_from(chosen, before[:, column], steps[:, column], far, fraction))
    return values, reasons


def _far_from(
    chosen: Selection, before: np.ndarray, steps: np.ndarray, far: np.ndarray, fraction: float
) -> str:
    """Return the reason why a series is not scored at a horizon."""
    tasks = sorted(set(chosen.tasks[far]))
    named = ", ".join(tasks[:3]) + (", …" if len(tasks) > 3 else "")
    first = np.flatnonzero(far & (chosen.tasks == tasks[0]))
    last = int(before[first].max())
    at = f"the last one is at {last:,}" if last > 0 else "the only one is at step 0"
    return (
        f"no evaluation within {100 * NEAR:.0f} % of {int(steps[first[0]]):,} env steps in {named} "
        f"({at}); "
        f"excluded at {100 * fraction:.0f} % of the horizon"
    )


def has_known_range(task: str) -> bool:
    """Return whether no return lies outside of the task's `score_range`.

    That holds for the tasks of this project, not for users' environments and tasks of plugins.
    """
    return task in TASKS and not TASKS[task].tags.isdisjoint(PAPER_SUITES)


def score_limits(runs: pd.DataFrame, statistic: str = "mean") -> tuple[float, float]:
    """Return the range of a statistic of the normalized scores of runs.

    Args:
        runs: rows of `ScoreCurves.runs`.
        statistic: key of `run_statistics.STATISTICS`.
    """
    unlimited = ~runs["task"].map(has_known_range) & ~runs["score"].map(is_success)
    if not unlimited.any():
        return 0.0, 1.0
    return (0.0 if statistic == "optimality_gap" else -np.inf), np.inf


def intervals(
    statistic: str,
    values: np.ndarray,
    strata: np.ndarray,
    rule: Rule,
    limits: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Return the statistic with its interval, `(num_checkpoints, 3)`.

    Checkpoints at which a run has no value are NaN; if the rule fills nothing in, only checkpoints
    at which a task has no value at all are.

    Args:
        statistic: key of `bootstrap.STATISTICS`.
        values: `(num_runs, num_checkpoints)`, NaN if a run has no value.
        strata: task of each run, `(num_runs,)`.
        rule: treatment of missing and repeated evaluations.
        limits: range of possible scores, at which intervals end.
    """
    present = ~np.isnan(values)
    bounds = np.full((values.shape[1], 3), np.nan)
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        full = len(np.unique(strata[pattern])) == strata[-1] + 1
        if pattern.all() or (full and rule.between == "none"):
            at = which == number
            values_present = values[np.ix_(pattern, at)]
            bounds[at] = t_interval(statistic, values_present, strata[pattern]).stacked()
    point, low, high = bounds.T
    low = np.maximum(low, np.minimum(limits[0], point))
    high = np.minimum(high, np.maximum(limits[1], point))
    return np.stack([point, low, high], axis=1)


def incomplete(
    steps: np.ndarray, values: np.ndarray, names: Sequence[str], rule: Rule, where: str
) -> list[Problem]:
    """Return at most one problem, which lists the runs without a value at some steps.

    Args:
        steps: env steps, or their labels, `(num_checkpoints,)`.
        values: `(num_runs, num_checkpoints)`, NaN if a run has no value.
        names: names of the runs.
        rule: treatment of missing and repeated evaluations. If it fills nothing in, nothing is
            reported, since the audit lists the missing evaluations.
        where: name of the series, for the problem.
    """
    missing = np.isnan(values)
    if rule.between == "none" or not missing.any():
        return []
    messages = []
    for name, absent in zip(names, missing, strict=True):
        if absent.any():
            at = steps[absent]
            span = f"{at[0]}" if len(at) == 1 else f"{at[0]} to {at[-1]}"
            messages.append(f"{name} lacks {len(at)} ({span})")
    named = "; ".join(messages[:3]) + (
        f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
    )
    what = f"{missing.any(axis=0).sum()} of {len(steps)} steps not averaged: {named}"
    return [Problem(where, None, what, "warning")]


def run_names(curves: ScoreCurves, chosen: Selection) -> list[str]:
    """Return seed and task of each run, for problems."""
    seeds = curves.runs["seed"].to_numpy()[chosen.rows]
    return [f"seed {seed} of {task}" for seed, task in zip(seeds, chosen.tasks, strict=True)]


def series_name(*parts: Any) -> str:
    """Return the name of a series and a task or domain, for problems."""
    return "/".join(str(name) for name in parts if name != "")


def joined(values: Any) -> str:
    """Return the values separated by blanks."""
    return " ".join(str(value) for value in values)
