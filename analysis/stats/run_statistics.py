"""Statistics of runs with equal weight of all tasks: mean, median, IQM, optimality gap."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

TRIM = 0.25
"""Fraction of the runs that the interquartile mean discards at each end."""

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function from scores `(num_runs, num_checkpoints)`, strata `(num_runs,)` and counts
`(num_runs, num_resamples)` to `(num_resamples, num_checkpoints)`.
"""


def mean(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean over tasks of the mean over each task's runs.

    With M tasks m of n_m runs, and the counts c, it is (1/M) Σ_m (1/n_m) Σ_i c_mi x_mi.

    Args:
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.
        counts: occurrences of each run in each resample, `(num_runs, num_resamples)`.
    """
    return counts.T.astype("float64") @ (run_weights(strata)[:, None] * scores / len(scores))


def optimality_gap(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean amount by which scores fall short of 1: the mean of max(1 − x, 0).

    Args:
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.
        counts: occurrences of each run in each resample, `(num_runs, num_resamples)`.
    """
    return mean(np.maximum(1 - scores, 0), strata, counts)


def median(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the median over tasks of the mean over each task's runs.

    Args:
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.
        counts: occurrences of each run in each resample, `(num_runs, num_resamples)`.
    """
    starts = np.flatnonzero(np.diff(strata, prepend=-1))
    sizes = np.bincount(strata)
    middle = (len(sizes) - 1) // 2, len(sizes) // 2
    out = np.empty((counts.shape[1], scores.shape[1]))
    for c, column in enumerate(scores.T.astype(counts.dtype)):
        weighted = counts * column[:, None]
        sums = weighted[starts]
        for k in range(1, sizes.max()):
            more = sizes > k
            sums[more] += weighted[starts[more] + k]
        means = sums / sizes.astype(counts.dtype)[:, None]
        # Sorting contiguous rows is many times faster here than np.partition.
        ranked = np.sort(np.ascontiguousarray(means.T), axis=1)
        out[:, c] = ranked[:, middle].mean(axis=1)
    return out


def iqm(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the interquartile mean: the mean without the ⌊n / 4⌋ lowest and highest of n runs.

    Let v₁ ≤ v₂ ≤ … be the sorted scores, C_i the weighted number of resampled runs up to the i-th,
    and C'_i that number clipped to [⌊n / 4⌋, n − ⌊n / 4⌋]. The sum Σ v_i (C'_i − C'_{i−1}) is
    computed by summation by parts: v_n C'_n − v_1 C'_0 − Σ (v_{i+1} − v_i) C'_i.

    Args:
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.
        counts: occurrences of each run in each resample, `(num_runs, num_resamples)`.
    """
    num_runs = len(scores)
    cut = math.floor(TRIM * num_runs)
    weighted = counts * run_weights(strata).astype(counts.dtype)[:, None]
    out = np.empty((counts.shape[1], scores.shape[1]))
    for c, column in enumerate(scores.T):
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        increases = np.flatnonzero(np.diff(ranked))
        cumulative = np.empty((len(increases), counts.shape[1]), counts.dtype)
        previous = np.zeros(counts.shape[1], counts.dtype)
        for row, (start, end) in enumerate(
            zip(np.append(0, increases + 1), increases, strict=False)
        ):
            np.add(previous, weighted[order[start]], out=cumulative[row])
            for i in order[start + 1 : end + 1]:  # ties
                cumulative[row] += weighted[i]
            previous = cumulative[row]
        np.maximum(cumulative, cut, out=cumulative)
        np.minimum(cumulative, num_runs - cut, out=cumulative)
        total = ranked[-1] * (num_runs - cut) - ranked[0] * cut
        total = total - np.diff(ranked)[increases].astype(counts.dtype) @ cumulative
        # Rounding in the summation by parts can turn scores of 0 into -1e-17.
        out[:, c] = np.clip(total / (num_runs - 2 * cut), ranked[0], ranked[-1])
    return out


STATISTICS: dict[str, Statistic] = {
    "mean": mean,
    "median": median,
    "iqm": iqm,
    "optimality_gap": optimality_gap,
}


def run_weights(strata: np.ndarray) -> np.ndarray:
    """Return the weights of the runs, `(num_runs,)`: 1 on average, with the same sum per task."""
    sizes = np.bincount(strata)
    return (len(strata) / len(sizes) / sizes)[strata]


def check(scores: np.ndarray, strata: np.ndarray) -> None:
    """Check that scores and strata are valid inputs of `interval`.

    Raises:
        ValueError: If the shapes do not match, the strata do not ascend from 0, or scores are not
            finite.
    """
    if scores.ndim != 2 or scores.size == 0 or strata.shape != scores.shape[:1]:
        raise ValueError(
            "scores must be a non-empty (num_runs, num_checkpoints), strata (num_runs,); "
            f"got {scores.shape} and {strata.shape}"
        )
    if strata[0] != 0 or not np.isin(np.diff(strata), (0, 1)).all():
        raise ValueError("strata must ascend from 0 without gaps")
    if not np.isfinite(scores).all():
        run, checkpoint = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"scores must be finite; got {scores[run, checkpoint]} at run {run} "
            f"(task {strata[run]}), checkpoint {checkpoint}"
        )
