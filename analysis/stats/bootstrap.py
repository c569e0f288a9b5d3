"""Stratified bootstrap of runs within tasks, vectorized.

Statistics and intervals are those of rliable (Agarwal et al., NeurIPS 2021): runs are resampled
with replacement within each task, and the interval lies between the 2.5th and 97.5th percentile of
the statistic over the resamples. The implementation differs: the resamples are a table of counts,
so that means are matrix multiplications and the interquartile mean is one pass over the runs sorted
by score. If a single task has so few seeds that all possible resamples can be enumerated, they are
weighted by their probability instead of sampled.

Scores are `(num_runs, num_checkpoints)`. `strata` `(num_runs,)` holds the task of each run as 0, 1,
…; tasks have equal weight, even if their numbers of runs differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
TRIM = 0.25
"""Fraction of the runs that the interquartile mean discards at each end."""
_BLOCK = 8192
"""Resamples processed at a time: large enough for vectorization, and small enough for the cache."""
_DTYPE = np.float32
"""Type of the counts, which it represents exactly; order statistics have seven digits."""


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap.

    Attributes:
        reps: number of bootstrap resamples.
        seed: seed of the generator of the resamples.
    """

    reps: int
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % interval, all `(num_checkpoints,)`; without one, NaN bounds."""

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def stacked(self) -> np.ndarray:
        """Return point, low and high as `(num_checkpoints, 3)`."""
        return np.stack([self.point, self.low, self.high], axis=-1)


def has_width(low: Any, high: Any) -> Any:
    """Return whether bounds are those of an interval, one or an array of them.

    Bounds are NaN for a single seed, and equal if no score varies. Equal scores of a few seeds do
    not show that all seeds would have this score, so that they have no interval either.
    """
    return high - low > ROUNDING


ROUNDING = 1e-9
"""Widths and standard errors up to this size are rounding errors of equal scores."""

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


def interval(
    statistic: str, scores: np.ndarray, strata: np.ndarray, bootstrap: Bootstrap
) -> Interval:
    """Return a statistic with its interval at each checkpoint.

    Args:
        statistic: key of `STATISTICS`.
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: task of each run, `(num_runs,)`, ascending from 0.
        bootstrap: number of resamples and seed.

    Returns:
        The interval; its bounds are NaN if no task has two runs, since its width would be zero.

    Raises:
        ValueError: If the shapes do not match, or scores are not finite.
    """
    check(scores, strata)
    function = STATISTICS[statistic]
    point = function(scores, strata, np.ones((len(scores), 1)))[0]
    sizes = np.bincount(strata)
    if sizes.max() == 1:
        return Interval(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
    if len(sizes) == 1 and num_multisets(sizes[0]) <= min(bootstrap.reps, 5000):
        counts, chances = all_resamples(sizes[0])
        return Interval(point, *weighted_tails(function(scores, strata, counts), chances))
    return Interval(point, *tails(_resampled(function, scores, strata, bootstrap)))


def difference(
    statistic: str,
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    bootstrap: Bootstrap,
) -> Interval:
    """Return our statistic minus theirs; both sides are resampled independently.

    Args:
        statistic: key of `STATISTICS`.
        ours: our scores and strata, as for `interval`.
        theirs: their scores and strata, with the same tasks and checkpoints.
        bootstrap: number of resamples and seed.
    """
    sides = []
    for stream, (scores, strata) in enumerate((ours, theirs)):
        check(scores, strata)
        function = STATISTICS[statistic]
        point = function(scores, strata, np.ones((len(scores), 1)))[0]
        sides.append((point, _resampled(function, scores, strata, bootstrap, stream)))
    (point, resampled), (other, other_resampled) = sides
    if max(np.bincount(ours[1]).max(), np.bincount(theirs[1]).max()) == 1:
        nan = np.full_like(point, np.nan)
        return Interval(point - other, nan, nan)
    return Interval(point - other, *tails(resampled - other_resampled))


def profile(
    scores: np.ndarray, strata: np.ndarray, taus: np.ndarray, bootstrap: Bootstrap
) -> Interval:
    """Return the performance profile: the fraction of runs that score above each τ.

    Args:
        scores: `(num_runs,)`, sorted by task.
        strata: task of each run, `(num_runs,)`.
        taus: thresholds, `(num_taus,)`.
        bootstrap: number of resamples and seed.
    """
    return interval("mean", (scores[:, None] > taus).astype("float64"), strata, bootstrap)


def probability_of_improvement(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    bootstrap: Bootstrap,
) -> Interval:
    """Return P(ours > theirs) on a random task (Mann–Whitney U; Agarwal et al. 2021).

    P = (1/M) Σ_m (1/(n_m k_m)) Σ_ij ([x_mi > y_mj] + ½ [x_mi = y_mj]), with M tasks m, our n_m runs
    x and their k_m runs y.

    Args:
        ours: our scores `(num_runs,)` and strata `(num_runs,)`, as for `interval`.
        theirs: their scores and strata, with the same tasks.
        bootstrap: number of resamples and seed; both sides are resampled independently.

    Returns:
        An interval with arrays of one element.

    Raises:
        ValueError: If the two sides have different numbers of tasks.
    """
    for scores, strata in (ours, theirs):
        check(scores[:, None], strata)
    num_tasks = int(ours[1].max()) + 1
    if num_tasks != int(theirs[1].max()) + 1:
        raise ValueError("both sides must have the same tasks")

    def wins(counts: np.ndarray, other_counts: np.ndarray) -> np.ndarray:
        total = np.zeros(counts.shape[1])
        for task in range(num_tasks):
            mine, other = ours[1] == task, theirs[1] == task
            gaps = ours[0][mine][:, None] - theirs[0][other]
            won = (np.sign(gaps) + 1) / 2 / gaps.size
            total += np.einsum("ir,ir->r", counts[mine], won @ other_counts[other])
        return total[:, None] / num_tasks

    point = wins(np.ones((len(ours[0]), 1)), np.ones((len(theirs[0]), 1)))[0]
    tables = [
        resamples(tuple(np.bincount(s)), bootstrap, stream)
        for stream, (_, s) in enumerate((ours, theirs))
    ]
    resampled = [wins(*(t[:, at].astype(_DTYPE) for t in tables)) for at in _blocks(bootstrap.reps)]
    return Interval(point, *tails(np.concatenate(resampled)))


@lru_cache(maxsize=6)
def resamples(sizes: tuple[int, ...], bootstrap: Bootstrap, lane: int = 0) -> np.ndarray:
    """Return how often each run occurs in each resample.

    Args:
        sizes: number of runs of each task.
        bootstrap: number of resamples and seed.
        lane: number of an independent random stream.

    Returns:
        Integer counts, `(num_runs, reps)`, read-only.
    """
    rng = np.random.default_rng([bootstrap.seed, lane])
    counts = np.zeros((sum(sizes), bootstrap.reps), np.uint8)
    start = 0
    for size in sizes:
        rows = counts[start : start + size]
        for _ in range(size):
            indices = rng.integers(size, size=bootstrap.reps, dtype=np.uint8)
            for k in range(size):
                rows[k] += indices == k
        start += size
    counts.flags.writeable = False
    return counts


def num_multisets(size: int) -> int:
    """Return the number of different resamples of `size` runs."""
    return math.comb(2 * size - 1, size)


@lru_cache(maxsize=8)
def all_resamples(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all resamples of one task's runs, `(size, num_resamples)`, and their chances."""
    multisets = list(combinations_with_replacement(range(size), size))
    counts = np.stack([np.bincount(indices, minlength=size) for indices in multisets], axis=1)
    multiplicities = [
        math.factorial(size) / math.prod(math.factorial(int(n)) for n in column)
        for column in counts.T
    ]
    return counts.astype("float64"), np.array(multiplicities) / float(size) ** size


def weighted_tails(outcomes: np.ndarray, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5th and 97.5th percentile of a discrete distribution at each checkpoint.

    Args:
        outcomes: `(num_outcomes, num_checkpoints)`.
        chances: probability of each outcome, `(num_outcomes,)`.
    """
    order = np.argsort(outcomes, axis=0, kind="stable")
    ranked = np.take_along_axis(outcomes, order, axis=0)
    reached = np.cumsum(chances[order], axis=0)
    # Tolerance for rounding in the cumulative sum of the probabilities.
    at = [np.argmax(reached >= tail - 1e-12, axis=0) for tail in TAILS]
    low, high = (np.take_along_axis(ranked, index[None], axis=0)[0] for index in at)
    return low, high


def tails(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5th and 97.5th percentile over the resamples at each checkpoint."""
    low, high = np.percentile(resampled, [100 * tail for tail in TAILS], axis=0)
    return low, high


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


def _resampled(
    function: Statistic, scores: np.ndarray, strata: np.ndarray, bootstrap: Bootstrap, lane: int = 0
) -> np.ndarray:
    """Return the statistic of every resample, `(reps, num_checkpoints)`."""
    counts = resamples(tuple(np.bincount(strata)), bootstrap, lane)
    blocks = [counts[:, at].astype(_DTYPE) for at in _blocks(bootstrap.reps)]
    return np.concatenate([function(scores, strata, block) for block in blocks])


def _blocks(reps: int) -> list[slice]:
    """Return consecutive slices of at most `_BLOCK` resamples."""
    return [slice(start, start + _BLOCK) for start in range(0, reps, _BLOCK)]
