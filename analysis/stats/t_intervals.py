"""Student's t-intervals of statistics over tasks, with Welch–Satterthwaite degrees of freedom.

Each run is one sample of its task. The mean over M tasks of the means of n_m runs has the standard
error √(Σ s_m²/n_m) / M. The optimality gap is the mean of max(1 − x, 0). The interquartile mean has
the error of the mean of the scores winsorized at its two cuts, divided by the share that it keeps
(Tukey and McLaughlin 1963), stratified by task. A median over tasks has no interval: noise of the
task means biases it, and no interval found keeps its coverage.

Scores and strata are as in `bootstrap.py`.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.stats.equivalence import mean_over_tasks, quantile, welch
from analysis.stats.intervals import LEVEL, Interval
from analysis.stats.run_statistics import STATISTICS, TRIM, check, run_weights

NO_INTERVAL = "median"
"""Statistic without an interval."""


def t_interval(statistic: str, scores: np.ndarray, strata: np.ndarray) -> Interval:
    """Return a statistic with its 95 % interval at each checkpoint.

    Args:
        statistic: key of `bootstrap.STATISTICS`.
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.

    Returns:
        The interval; its bounds are NaN for a median, and if no task has two runs.

    Raises:
        ValueError: If the shapes do not match, or scores are not finite.
    """
    check(scores, strata)
    if statistic == NO_INTERVAL:
        point = STATISTICS[statistic](scores, strata, np.ones((len(scores), 1)))[0]
        return Interval(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
    if statistic == "iqm":
        point, winsorized, kept = _trimmed(scores, strata)
        error, freedom = _error(winsorized, strata)
        error = error / kept
    else:
        values = np.maximum(1 - scores, 0) if statistic == "optimality_gap" else scores
        point = run_weights(strata) @ values / len(values)
        error, freedom = _error(values, strata)
    width = error * quantile((1 + LEVEL) / 2, freedom)
    return Interval(point, point - width, point + width)


def improvement_interval(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> Interval:
    """Return P(ours > theirs) on a random task, ties counted half, with its 95 % interval.

    The variance on a task is that of Mann–Whitney's U (DeLong et al. 1988): with the share of
    theirs that each of our n runs exceeds, and the share of ours that exceeds each of their k runs,
    it is the variance of the former over n plus that of the latter over k.

    Args:
        ours: scores `(num_runs, num_checkpoints)` and strata `(num_runs,)`.
        theirs: scores and strata of the other side, with the same tasks.
    """
    num_tasks = int(ours[1][-1]) + 1
    value, error, freedom = np.zeros((3, ours[0].shape[1], num_tasks))
    for task in range(num_tasks):
        mine, other = ours[0][ours[1] == task], theirs[0][theirs[1] == task]
        won = (np.sign(mine[:, None] - other) + 1) / 2
        # The smaller the score of theirs is, the larger is the share of ours that exceeds it.
        shares = won.mean(axis=1).T, 1 - won.mean(axis=0).T
        value[:, task] = won.mean(axis=(0, 1))
        _, error[:, task], freedom[:, task] = welch(*shares)
    point, spread, pooled = mean_over_tasks(value, error, freedom)
    width = spread * quantile((1 + LEVEL) / 2, pooled)
    return Interval(point, np.maximum(point - width, 0), np.minimum(point + width, 1))


def _error(values: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return standard error and freedom of the mean over tasks, each `(num_checkpoints,)`.

    A task with a single run takes the mean variance of the other tasks.
    """
    starts = np.flatnonzero(np.diff(strata, prepend=-1))
    sizes = np.bincount(strata)
    means = np.add.reduceat(values, starts) / sizes[:, None]
    squares = np.add.reduceat((values - means[strata]) ** 2, starts)
    several = sizes > 1
    if not several.any():
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    variances = squares / np.maximum(sizes - 1, 1)[:, None]
    variances[~several] = variances[several].mean(axis=0)
    freedom = np.where(several, sizes - 1, (sizes - 1).sum())
    errors = np.sqrt(variances / sizes[:, None]).T
    _, error, pooled = mean_over_tasks(np.zeros_like(errors), errors, freedom)
    return error, pooled


def _trimmed(scores: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return interquartile means, the winsorized scores, and the share of the runs that is kept.

    The mean is that of `bootstrap.iqm`, at all checkpoints at once.
    """
    num_runs = len(scores)
    cut = math.floor(TRIM * num_runs)
    order = np.argsort(scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    reached = np.cumsum(run_weights(strata)[order], axis=0)
    inside = np.diff(np.clip(reached, cut, num_runs - cut), axis=0, prepend=cut)
    point = (ranked * inside).sum(axis=0) / (num_runs - 2 * cut)
    tolerance = 1e-9 * num_runs
    ends = [
        np.argmax(reached > cut + tolerance, axis=0),
        np.argmax(reached >= num_runs - cut - tolerance, axis=0),
    ]
    low, high = (np.take_along_axis(ranked, end[None], axis=0) for end in ends)
    return point, np.clip(scores, low, high), 1 - 2 * cut / num_runs
