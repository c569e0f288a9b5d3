"""Aggregate statistics over groups of tasks; the only module that imports rliable.

Means, medians, interquartile means and optimality gaps are those of rliable. Their intervals come
from `analysis/stats/t_intervals.py`: with few seeds, rliable's stratified bootstrap covers too
little. The coverage of each interval is measured by simulation (`analysis/stats/coverage.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from rliable import library as rly
from rliable import metrics as rliable_metrics

from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import (
    Pools,
    coverage_of,
    coverage_of_pair,
    pools_of,
    studies_of,
)
from analysis.stats.horizons import Group
from analysis.stats.intervals import Interval, has_width
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.run_statistics import STATISTICS
from analysis.stats.selection import (
    INTERVAL,
    Selection,
    Series,
    horizon_scores,
    incomplete,
    intervals,
    run_names,
    score_limits,
    select,
    series_name,
)
from analysis.stats.t_intervals import improvement_interval, t_interval

RLIABLE_VERSION = version("rliable")
GROUP_CURVES = [
    *SERIES,
    *("group", "step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "num_tasks", "num_runs", "reps", "coverage"),
]
GROUP_SCORES = [
    *SERIES,
    *("group", "fraction", "statistic", "value", "low", "high"),
    *("num_seeds", "seeds", "num_tasks", "num_runs", "reps", "coverage"),
]
_BOUNDS = ["group", "value", "low", "high", "coverage"]
PROFILE_TAUS = np.linspace(0, 1, 101)


def group_curves(
    curves: ScoreCurves,
    groups: Sequence[Group],
    rule: Rule,
    bootstrap: Bootstrap,
    statistic: str = "mean",
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return a statistic of a group's normalized scores, per series and env step.

    Every series is averaged over the same tasks, those of the group. A series that lacks a task is
    listed as a problem instead, and so is a step at which the rule gives a run no value.

    Args:
        curves: all runs.
        groups: groups of tasks.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.
        statistic: key of `bootstrap.STATISTICS`.

    Returns:
        Columns `GROUP_CURVES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for group in groups:
        for series, chosen in select(curves, group.tasks, group.name, problems):
            where = series_name(*series, group.name)
            steps = curves.common_grid(
                chosen.rows, np.inf if group.horizon is None else group.horizon
            )
            values = curves.values(chosen.rows, steps, rule, normalized=True)
            names = run_names(curves, chosen)
            problems += incomplete(steps, values, names, rule, where)
            if chosen.single:
                what = "one run per task: the mean has no interval"
                problems.append(Problem(where, None, what, "warning"))
            limits = score_limits(curves.runs.loc[chosen.rows], statistic)
            bounds = intervals(statistic, values, chosen.strata, rule, limits)
            runs = (chosen.rows, chosen.strata)
            last = np.inf if group.horizon is None else group.horizon
            share = coverage_of(statistic, curves, runs, last, bootstrap)
            for step, bound in zip(steps, bounds, strict=True):
                if not np.isnan(bound[0]):
                    head = (*series, group.name, step, curves.step_unit, "normalized_score")
                    rows.append((*head, *bound, *chosen.counts, studies, share))
    return pd.DataFrame(rows, columns=GROUP_CURVES), tuple(problems)


def group_scores(
    curves: ScoreCurves,
    groups: Sequence[Group],
    rule: Rule,
    bootstrap: Bootstrap,
    *,
    statistics: Sequence[str] = tuple(STATISTICS),
    fractions: Sequence[float] = (1.0,),
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return statistics of the normalized scores at fractions of each group's horizon.

    Args:
        curves: all runs.
        groups: groups of tasks with their horizons.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.
        statistics: keys of `bootstrap.STATISTICS`.
        fractions: fractions of each task's horizon.

    Returns:
        Columns `GROUP_SCORES`, scores in [0, 1]; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for group in groups:
        for series, chosen in select(curves, group.tasks, group.name, problems):
            where = series_name(*series, group.name)
            values = _at_horizon(curves, chosen, group, rule, where, problems, fractions)
            for statistic in statistics:
                limits = score_limits(curves.runs.loc[chosen.rows], statistic)
                bounds = intervals(statistic, values, chosen.strata, rule, limits)
                runs = (chosen.rows, chosen.strata)
                until = np.array([group.steps(str(task)) for task in chosen.tasks])
                share = coverage_of(statistic, curves, runs, until, bootstrap)
                for fraction, bound in zip(fractions, bounds, strict=True):
                    if not np.isnan(bound[0]):
                        head = (*series, group.name, fraction, statistic)
                        rows.append((*head, *bound, *chosen.counts, studies, share))
    return pd.DataFrame(rows, columns=GROUP_SCORES), tuple(problems)


def profiles(
    curves: ScoreCurves, group: Group, rule: Rule, _: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the performance profile of each series at the group's horizon.

    Args:
        curves: all runs.
        group: group of tasks with its horizon.
        rule: treatment of missing and repeated evaluations.
        _: not used; the signature is that of `improvements`.

    Returns:
        Columns `SERIES`, group, tau, value, low, high; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for series, final in _final(curves, group, rule, problems):
        above = (final.scores > PROFILE_TAUS).astype(float)
        bounds = np.clip(t_interval("mean", above, final.strata).stacked(), 0, 1)
        rows += [
            (*series, group.name, tau, *bound)
            for tau, bound in zip(PROFILE_TAUS, bounds, strict=True)
        ]
    columns = [*SERIES, "group", "tau", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns), tuple(problems)


def improvements(
    curves: ScoreCurves, group: Group, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the probability of improvement P(X > Y) for all ordered pairs of series.

    Args:
        curves: all runs.
        group: group of tasks with its horizon.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.

    Returns:
        Columns `SERIES` with the prefixes `x_` and `y_`, group, value, low, high, coverage (NaN
        without an interval); and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    final = list(_final(curves, group, rule, problems))
    for place, (x, ours) in enumerate(final):
        for y, theirs in final[place + 1 :]:
            found = improvement_interval((ours.scores, ours.strata), (theirs.scores, theirs.strata))
            value, low, high = found.stacked()[0]
            share = float("nan")
            if has_width(low, high):
                pools, sizes = (ours.pools, theirs.pools), (ours.sizes, theirs.sizes)
                share = coverage_of_pair("improvement", pools, sizes, bootstrap)
            rows.append((*x, *y, group.name, value, low, high, share))
            rows.append((*y, *x, group.name, 1 - value, 1 - high, 1 - low, share))
    columns = [*(f"x_{name}" for name in SERIES), *(f"y_{name}" for name in SERIES)]
    return pd.DataFrame(rows, columns=[*columns, *_BOUNDS]), tuple(problems)


def reference_interval(statistic: str, scores: np.ndarray, bootstrap: Bootstrap) -> Interval:
    """Return the interval computed by rliable itself, for comparison.

    It takes minutes instead of seconds. rliable 1.2.0 samples from numpy's global generator even if
    a `random_state` is passed, so the global generator is seeded here and restored afterwards.

    Args:
        statistic: key of `bootstrap.STATISTICS`.
        scores: `(num_seeds, num_tasks)`.
        bootstrap: number of resamples and seed.
    """
    metric = RLIABLE_METRICS[statistic]
    state = np.random.get_state()
    np.random.seed(bootstrap.seed)
    try:
        points, intervals = rly.get_interval_estimates(
            {"scores": scores}, lambda resample: np.array([metric(resample)]), reps=bootstrap.reps
        )
    finally:
        np.random.set_state(state)
    return Interval(points["scores"], *intervals["scores"])


RLIABLE_METRICS = {
    "mean": rliable_metrics.aggregate_mean,
    "median": rliable_metrics.aggregate_median,
    "iqm": rliable_metrics.aggregate_iqm,
    "optimality_gap": rliable_metrics.aggregate_optimality_gap,
}
"""rliable's definitions of `bootstrap.STATISTICS`, for scores `(num_seeds, num_tasks)`."""


@dataclass(frozen=True)
class _Final:
    """Runs of one series at the horizon: scores `(num_runs, 1)`, strata, and pools of scores."""

    scores: np.ndarray
    strata: np.ndarray
    pools: Pools

    @property
    def sizes(self) -> tuple[int, ...]:
        """Runs of each task."""
        return tuple(map(int, np.bincount(self.strata)))


def _final(
    curves: ScoreCurves, group: Group, rule: Rule, problems: list[Problem]
) -> Iterator[tuple[Series, _Final]]:
    """Yield each series with its runs at the horizon."""
    for series, chosen in select(curves, group.tasks, group.name, problems):
        where = series_name(*series, group.name)
        values = _at_horizon(curves, chosen, group, rule, where, problems)
        present = ~np.isnan(values[:, 0])
        full = len(np.unique(chosen.strata[present])) == len(group.tasks)
        if present.all() or (full and rule.between == "none"):
            strata = chosen.strata[present]
            until = np.array([group.steps(str(task)) for task in chosen.tasks[present]])
            pools = pools_of(curves, chosen.rows[present], strata, until)
            yield series, _Final(values[present], strata, pools)


def _at_horizon(
    curves: ScoreCurves,
    chosen: Selection,
    group: Group,
    rule: Rule,
    where: str,
    problems: list[Problem],
    fractions: Sequence[float] = (1.0,),
) -> np.ndarray:
    """Return scores at fractions of the horizon, `(num_runs, num_fractions)`.

    Args:
        curves: all runs.
        chosen: runs of one series.
        group: group of tasks with its horizon.
        rule: treatment of missing and repeated evaluations.
        where: name of the series, for problems.
        problems: list to which missing scores are appended.
        fractions: fractions of each task's horizon.
    """
    values, reasons = horizon_scores(curves, chosen, group, rule, fractions)
    problems += [Problem(where, None, reason, "warning") for reason in reasons]
    reached = ~np.isnan(values).all(axis=0) | (not reasons)
    steps = np.array([f"{100 * fraction:.0f} % of the horizon" for fraction in fractions])
    names = run_names(curves, chosen)
    problems += incomplete(steps[reached], values[:, reached], names, rule, where)
    return values
