"""Coverage of the intervals of a figure, measured by simulation on the figure's own runs.

Every task has a pool: the last evaluations of its runs up to the horizon. A simulated study draws
as many scores of each task as the figure has runs, and its interval either contains the statistic
of the pools or not. Pools of a few runs are an approximation of the unknown population: measured
coverages are accurate to a few percentage points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from analysis.stats.bootstrap import Bootstrap
from analysis.stats.equivalence import mean_over_tasks, quantile, welch
from analysis.stats.horizons import Group
from analysis.stats.intervals import LEVEL, ROUNDING, Interval
from analysis.stats.least_variance import LeastVariance, TaskLeast
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.selection import Series, select
from analysis.stats.t_intervals import NO_INTERVAL, improvement_interval, t_interval

EVALUATIONS = 5
"""Evaluations of each run in the pool of its task."""
STUDIES = 1000
ACCEPTED = (0.92, 0.98)
"""Measured coverages at which an interval is labeled 95 %."""
NOMINAL = "95 %"
STATISTIC_LABELS = {
    "mean": "mean",
    "median": "median",
    "iqm": "interquartile mean",
    "optimality_gap": "optimality gap",
    "improvement": "probability of improvement",
    "difference": "difference",
}
_COPIES = 240
"""Copies of a pool that represent endless runs; divisible by the usual sizes of pools."""


@dataclass(frozen=True)
class Coverage:
    """Measured coverage of the intervals of one series on one group.

    Attributes:
        series: the series.
        group: label of the group.
        num_tasks: number of tasks.
        num_seeds: runs per task, the smallest and the largest number.
        statistic: key of `bootstrap.STATISTICS`.
        share: share of the simulated intervals that contain the statistic of the pools.
    """

    series: Series
    group: str
    num_tasks: int
    num_seeds: tuple[int, int]
    statistic: str
    share: float

    @property
    def label(self) -> str:
        """Level that the interval may be labeled with, such as `95 %`."""
        return level_label(self.share)


def level_label(share: float) -> str:
    """Return the level that an interval with a measured coverage may be labeled with."""
    if ACCEPTED[0] <= share <= ACCEPTED[1]:
        return NOMINAL
    rounded = round(share, 2)
    # A decimal where the rounded number would look like one that is labeled 95 %.
    digits = 1 if ACCEPTED[0] <= rounded <= ACCEPTED[1] else 0
    return f"{100 * share:.{digits}f} %"


def coverages(
    curves: ScoreCurves, groups: Sequence[Group], statistics: Sequence[str], bootstrap: Bootstrap
) -> Iterator[Coverage]:
    """Yield the coverage of every series, group and statistic that has an interval.

    Args:
        curves: all runs.
        groups: groups of tasks with their horizons.
        statistics: keys of `bootstrap.STATISTICS`.
        bootstrap: number of simulated studies and seed.
    """
    for group in groups:
        for series, chosen in select(curves, group.tasks, group.name, []):
            sizes = np.bincount(chosen.strata)
            until = np.array([group.steps(str(task)) for task in chosen.tasks])
            for statistic in statistics:
                runs = (chosen.rows, chosen.strata)
                share = coverage_of(statistic, curves, runs, until, bootstrap)
                seeds = (int(sizes.min()), int(sizes.max()))
                if not np.isnan(share):
                    yield Coverage(series, group.label, len(sizes), seeds, statistic, share)


Pools = tuple[tuple[float, ...], ...]
"""Scores of each task."""


def pools_of(
    curves: ScoreCurves,
    rows: np.ndarray,
    strata: np.ndarray,
    until: np.ndarray,
    since: float = 0,
) -> Pools:
    """Return the last normalized scores of each task's runs.

    Args:
        curves: all runs.
        rows: row numbers of the runs, sorted by task.
        strata: task of each run, `(num_runs,)`.
        until: last step of each run, `(num_runs,)`.
        since: earlier scores are left out, but for the last one of a run that has only such.
    """
    pools: list[list[float]] = [[] for _ in range(int(strata[-1]) + 1)]
    scales, offsets = (curves.runs[name].to_numpy() for name in ("scale", "offset"))
    for row, stratum, last in zip(rows, strata, until, strict=True):
        curve = curves.curves[row]
        within = (curve.steps <= last) & (curve.steps > 0)
        order = np.argsort(curve.steps[within], kind="stable")
        count = min(max(int((curve.steps[within] >= since).sum()), 1), EVALUATIONS)
        values = curve.values[within][order][-count:]
        pools[stratum] += (scales[row] * (values - offsets[row])).tolist()
    return tuple(map(tuple, pools))


TaskPair = tuple[tuple[float, ...], tuple[float, ...]]
"""Scores of one task, of both sides."""


def last_scores(
    curves: ScoreCurves, rows: np.ndarray, until: float, since: float = 0
) -> tuple[float, ...]:
    """Return the last scores of the runs of one task.

    Args:
        curves: all runs.
        rows: row numbers of the runs.
        until: last step.
        since: earlier scores are left out; see `pools_of`.
    """
    return pools_of(curves, rows, np.zeros(len(rows), int), np.full(len(rows), until), since)[0]


def coverage_of_differences(
    pairs: Sequence[TaskPair],
    counts: Sequence[tuple[int, int]],
    least: Sequence[TaskLeast] = (),
) -> float:
    """Return the measured coverage of Welch's interval of a mean over tasks; NaN if there is none.

    Args:
        pairs: results of `last_scores` of both sides of each task.
        counts: runs of both sides of each task.
        least: smallest variances of both sides of each task, if the interval assumes any.
    """
    if not pairs:
        return float("nan")
    pools = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    sizes = tuple(pair[0] for pair in counts), tuple(pair[1] for pair in counts)
    return coverage_of_pair("difference", pools, sizes, Bootstrap(STUDIES), tuple(least))


def coverage_of(
    statistic: str,
    curves: ScoreCurves,
    chosen: tuple[np.ndarray, np.ndarray],
    until: np.ndarray | float,
    bootstrap: Bootstrap,
) -> float:
    """Return the measured coverage of the interval of a statistic; NaN if there is none.

    Args:
        statistic: key of `bootstrap.STATISTICS`.
        curves: all runs.
        chosen: row numbers of the runs, sorted by task, and their strata.
        until: last step of the pools, one for all runs or `(num_runs,)`. If a run has not come so
            far, the pools of all end there, as no mean of later scores is shown.
        bootstrap: number of simulated studies, of which `STUDIES` suffice, and seed.
    """
    rows, strata = chosen
    sizes = np.bincount(strata)
    if statistic == NO_INTERVAL or sizes.max() < 2:
        return float("nan")
    pools = pools_of(curves, rows, strata, _common_end(curves, rows, until))
    if not all(pools) or not np.isfinite([x for pool in pools for x in pool]).all():
        return float("nan")
    return simulated(statistic, pools, tuple(map(int, sizes)), studies_of(bootstrap))


def _common_end(curves: ScoreCurves, rows: np.ndarray, until: np.ndarray | float) -> np.ndarray:
    """Return the last step of the pools of each run, `(num_runs,)`; see `coverage_of`."""
    wanted = np.broadcast_to(until, len(rows))
    reached = curves.reached[rows]
    behind = reached[reached < wanted]
    return np.minimum(wanted, behind.min(initial=np.inf))


def _varies(pool: Sequence[float]) -> bool:
    """Return whether the scores of a task differ; equal ones have no interval."""
    return max(pool) - min(pool) > ROUNDING


def _apart(pair: tuple[Sequence[float], Sequence[float]]) -> bool:
    """Return whether one side always scores higher, so that the probability does not vary."""
    ours, theirs = pair
    return min(ours) > max(theirs) or max(ours) < min(theirs) or not _varies([*ours, *theirs])


def studies_of(bootstrap: Bootstrap) -> Bootstrap:
    """Return the number of simulated studies and their seed."""
    return Bootstrap(min(bootstrap.reps, STUDIES), bootstrap.seed)


@lru_cache(maxsize=4096)
def simulated(statistic: str, pools: Pools, sizes: tuple[int, ...], bootstrap: Bootstrap) -> float:
    """Return the share of simulated intervals that contain the statistic of the pools.

    Equal scores have no interval, and NaN as the result.

    Args:
        statistic: key of `bootstrap.STATISTICS`.
        pools: scores of each task, normalized.
        sizes: runs of each task.
        bootstrap: number of simulated studies and seed.
    """
    if not any(map(_varies, pools)):
        return float("nan")
    truth = t_interval(statistic, *_endless(pools)).point[0]
    found = t_interval(statistic, *_drawn(pools, sizes, bootstrap, 0))
    return _share(found, truth)


def coverage_of_pair(
    statistic: str,
    pools: tuple[Pools, Pools],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    bootstrap: Bootstrap,
    least: tuple[TaskLeast, ...] = (),
) -> float:
    """Return the measured coverage of the interval of a comparison; NaN if there is none.

    Args:
        statistic: "difference" (of the means over tasks) or "improvement".
        pools: scores of each task, of both sides.
        sizes: runs of each task, of both sides.
        bootstrap: number of simulated studies, of which `STUDIES` suffice, and seed.
        least: smallest variances of both sides of each task, if a difference assumes any.
    """
    every = [pool for side in pools for pool in side]
    if min(map(min, sizes)) < 2 or not all(every) or not np.isfinite(np.concatenate(every)).all():
        return float("nan")
    studies = studies_of(bootstrap)
    if statistic == "difference":
        return simulated_difference(pools, sizes, studies, least)
    apart = all(map(_apart, zip(*pools, strict=True)))
    return float("nan") if apart else simulated_improvement(pools, sizes, studies)


@lru_cache(maxsize=256)
def simulated_difference(
    pools: tuple[Pools, Pools],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    bootstrap: Bootstrap,
    least: tuple[TaskLeast, ...] = (),
) -> float:
    """Return the share of simulated Welch intervals that contain the difference of the means.

    Without an interval in any study, the result is NaN.

    Args:
        pools: scores of each task, of both sides.
        sizes: runs of each task, of both sides.
        bootstrap: number of simulated studies and seed.
        least: smallest variances of both sides of each task, if the interval assumes any.
    """
    drawn = [100 * scores.T for scores, _ in _both_drawn(pools, sizes, bootstrap)]
    truth, value, error, freedom = np.zeros((4, bootstrap.reps, len(pools[0])))
    starts = [np.cumsum((0, *own)) for own in sizes]
    for task, smallest in enumerate(least or [(LeastVariance(),) * 2] * len(pools[0])):
        ours, theirs = (
            scores[:, at[task] : at[task + 1]] for scores, at in zip(drawn, starts, strict=True)
        )
        truth[:, task] = 100 * (np.mean(pools[0][task]) - np.mean(pools[1][task]))
        own = (smallest[0].of(ours), smallest[1].of(theirs))
        value[:, task], error[:, task], freedom[:, task] = welch(ours, theirs, own)
    point, spread, pooled = mean_over_tasks(value, error, freedom)
    if spread.max() <= ROUNDING:
        return float("nan")
    width = spread * quantile((1 + LEVEL) / 2, pooled)
    return _share(Interval(point, point - width, point + width), float(truth[0].mean()))


@lru_cache(maxsize=256)
def simulated_improvement(
    pools: tuple[Pools, Pools],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    bootstrap: Bootstrap,
) -> float:
    """Return the share of simulated intervals that contain the probability of improvement.

    Args:
        pools: scores of each task, of both sides.
        sizes: runs of each task, of both sides.
        bootstrap: number of simulated studies and seed.
    """
    truth = improvement_interval(_endless(pools[0]), _endless(pools[1])).point[0]
    return _share(improvement_interval(*_both_drawn(pools, sizes, bootstrap)), truth)


def _both_drawn(
    pools: tuple[Pools, Pools],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    bootstrap: Bootstrap,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the simulated studies of both sides, see `_drawn`.

    Args:
        pools: scores of each task, of both sides.
        sizes: runs of each task, of both sides.
        bootstrap: number of simulated studies and seed.
    """
    (ours, theirs), (our_sizes, their_sizes) = pools, sizes
    return _drawn(ours, our_sizes, bootstrap, 0), _drawn(theirs, their_sizes, bootstrap, 1)


def _endless(pools: Pools) -> tuple[np.ndarray, np.ndarray]:
    """Return scores `(num_runs, 1)` and strata that represent endless runs of each task."""
    spaced = (np.arange(_COPIES) + 0.5) / _COPIES
    every = [np.array(pool)[(spaced * len(pool)).astype(int)] for pool in pools]
    return np.concatenate(every)[:, None], np.arange(len(pools)).repeat(_COPIES)


def _drawn(
    pools: Pools, sizes: tuple[int, ...], bootstrap: Bootstrap, lane: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of drawn runs, `(num_runs, num_studies)`, and their strata."""
    rng = np.random.default_rng([bootstrap.seed, lane])
    drawn = [
        np.array(pool)[rng.integers(len(pool), size=(size, bootstrap.reps))]
        for pool, size in zip(pools, sizes, strict=True)
    ]
    return np.concatenate(drawn), np.arange(len(pools)).repeat(sizes)


def _share(found: Interval, truth: float) -> float:
    """Return the share of intervals that contain the truth; rounding errors are tolerated."""
    return float(np.mean((found.low <= truth + 1e-9) & (truth <= found.high + 1e-9)))
