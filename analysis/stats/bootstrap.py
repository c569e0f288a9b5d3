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
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

from analysis.stats.intervals import TAILS, Interval
from analysis.stats.run_statistics import STATISTICS, Statistic, check

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
