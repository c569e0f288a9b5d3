"""Room of the resampling: the stratified bootstrap of runs within tasks, vectorized.

Statistics and intervals are rliable's (Agarwal et al., NeurIPS 2021): runs are drawn with
replacement within each task, and the interval lies between the 2.5th and 97.5th percentile of
the statistic over the resamples. What differs is the work: how often each run is drawn is laid
down once as a table of counts, so that means are matrix products and the interquartile mean one
pass over the runs in the order of their scores. Where few seeds of one task have few possible
resamples, all of them are weighed and nothing is drawn.

Scores are `(num_runs, num_checkpoints)`, with `strata` `(num_runs,)` telling each run's task as
0, 1, …; tasks may differ in the number of their runs and weigh alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
TRIM = 0.25
"""Share cut off at each end for the interquartile mean."""
_BLOCK = 8192
"""Resamples worked on at a time: many to a call, yet few enough for a core's caches."""
_DTYPE = np.float32
"""Of counts, which are exact in it; order statistics of resamples have seven digits."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes:
        reps: number of bootstrap resamples.
        seed: of the generator that draws them.
    """

    reps: int
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % interval, each `(num_checkpoints,)`; NaN bounds where none is."""

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def stacked(self) -> np.ndarray:
        """`(num_checkpoints, 3)`: point, low, high."""
        return np.stack([self.point, self.low, self.high], axis=-1)


Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From scores `(num_runs, num_checkpoints)`, strata, and counts `(num_runs, num_resamples)` to
`(num_resamples, num_checkpoints)`."""


def mean(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over tasks of the mean over each task's runs."""
    return counts.T.astype("float64") @ (run_weights(strata)[:, None] * scores / len(scores))


def optimality_gap(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How far scores fall short of 1 on average, those above 1 counted as 1."""
    return mean(np.maximum(1 - scores, 0), strata, counts)


def median(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median over tasks of the mean over each task's runs."""
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
        # Tasks side by side in memory, and sorted: many times faster here than a selection.
        ranked = np.sort(np.ascontiguousarray(means.T), axis=1)
        out[:, c] = ranked[:, middle].mean(axis=1)
    return out


def iqm(scores: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Interquartile mean: of all runs, without the ⌊n / 4⌋ lowest and highest.

    With the runs in the order of their scores v₁ ≤ v₂ ≤ …, C_i the number of runs drawn up to
    the i-th, and C'_i that number clipped to what is kept, the sum Σ v_i (C'_i − C'_{i−1}) is
    summed by parts: v_n C'_n − v_1 C'_0 − Σ (v_{i+1} − v_i) C'_i.
    """
    num_runs = len(scores)
    cut = math.floor(TRIM * num_runs)
    weighted = counts * run_weights(strata).astype(counts.dtype)[:, None]
    out = np.empty((counts.shape[1], scores.shape[1]))
    for c, column in enumerate(scores.T):
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        rises = np.flatnonzero(np.diff(ranked))
        drawn = np.empty((len(rises), counts.shape[1]), counts.dtype)
        before = np.zeros(counts.shape[1], counts.dtype)
        for row, (start, end) in enumerate(zip(np.append(0, rises + 1), rises, strict=False)):
            np.add(before, weighted[order[start]], out=drawn[row])
            for i in order[start + 1 : end + 1]:  # runs of equal scores
                drawn[row] += weighted[i]
            before = drawn[row]
        np.maximum(drawn, cut, out=drawn)
        np.minimum(drawn, num_runs - cut, out=drawn)
        total = ranked[-1] * (num_runs - cut) - ranked[0] * cut
        total = total - np.diff(ranked)[rises].astype(counts.dtype) @ drawn
        # Summed by parts, scores that are all 0 may come out as -1e-17.
        out[:, c] = np.clip(total / (num_runs - 2 * cut), ranked[0], ranked[-1])
    return out


STATISTICS: dict[str, Statistic] = {
    "mean": mean,
    "median": median,
    "iqm": iqm,
    "optimality_gap": optimality_gap,
}


def run_weights(strata: np.ndarray) -> np.ndarray:
    """`(num_runs,)`, 1 on average: runs weigh as 1 / the number of their task's runs."""
    sizes = np.bincount(strata)
    return (len(strata) / len(sizes) / sizes)[strata]


def interval(
    statistic: str, scores: np.ndarray, strata: np.ndarray, bootstrap: Bootstrap
) -> Interval:
    """A statistic of `STATISTICS` with its interval, at each checkpoint.

    Args:
        statistic: its name.
        scores: `(num_runs, num_checkpoints)`, sorted by task.
        strata: `(num_runs,)`, the task of each run, ascending from 0.
        bootstrap: resamples and seed.

    Returns:
        NaN bounds where no task has two runs, whose interval would have no width.

    Raises:
        ValueError: shapes that do not fit, or scores that are not finite.
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
    """Ours minus theirs, both resampled, each on its own.

    Args:
        statistic: name in `STATISTICS`.
        ours: scores and strata as for `interval`.
        theirs: likewise, over the same tasks and checkpoints.
        bootstrap: resamples and seed.
    """
    sides = []
    for lane, (scores, strata) in enumerate((ours, theirs)):
        check(scores, strata)
        function = STATISTICS[statistic]
        point = function(scores, strata, np.ones((len(scores), 1)))[0]
        sides.append((point, _resampled(function, scores, strata, bootstrap, lane)))
    (point, draws), (other, other_draws) = sides
    if max(np.bincount(ours[1]).max(), np.bincount(theirs[1]).max()) == 1:
        nan = np.full_like(point, np.nan)
        return Interval(point - other, nan, nan)
    return Interval(point - other, *tails(draws - other_draws))


def profile(
    scores: np.ndarray, strata: np.ndarray, taus: np.ndarray, bootstrap: Bootstrap
) -> Interval:
    """Performance profile: the share of runs that score above each of `taus`.

    Args:
        scores: `(num_runs,)`.
        strata: as for `interval`.
        taus: `(num_taus,)`.
        bootstrap: resamples and seed.
    """
    return interval("mean", (scores[:, None] > taus).astype("float64"), strata, bootstrap)


def probability_of_improvement(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    bootstrap: Bootstrap,
) -> Interval:
    """P(ours > theirs) on a task chosen at random, ties counted half (Mann and Whitney's U).

    Args:
        ours: scores `(num_runs,)` and strata, as for `interval`.
        theirs: likewise, over the same tasks.
        bootstrap: resamples and seed; both sides are resampled, each on its own.

    Returns:
        arrays of one element.
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
        resamples(tuple(np.bincount(s)), bootstrap, lane)
        for lane, (_, s) in enumerate((ours, theirs))
    ]
    draws = [wins(*(t[:, at].astype(_DTYPE) for t in tables)) for at in _blocks(bootstrap.reps)]
    return Interval(point, *tails(np.concatenate(draws)))


@lru_cache(maxsize=6)
def resamples(sizes: tuple[int, ...], bootstrap: Bootstrap, lane: int = 0) -> np.ndarray:
    """How often each run is drawn: `(num_runs, reps)`, whole numbers, not to be written to.

    Args:
        sizes: number of runs of each task.
        bootstrap: number of resamples and seed.
        lane: tells apart tables that are to be independent of each other.
    """
    rng = np.random.default_rng([bootstrap.seed, lane])
    counts = np.zeros((sum(sizes), bootstrap.reps), np.uint8)
    start = 0
    for size in sizes:
        rows = counts[start : start + size]
        for _ in range(size):
            drawn = rng.integers(size, size=bootstrap.reps, dtype=np.uint8)
            for k in range(size):
                rows[k] += drawn == k
        start += size
    counts.flags.writeable = False
    return counts


def num_multisets(size: int) -> int:
    """How many different resamples `size` runs have."""
    return math.comb(2 * size - 1, size)


@lru_cache(maxsize=8)
def all_resamples(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every resample of one task's runs as counts `(size, num_resamples)`, and their chances."""
    sets = list(combinations_with_replacement(range(size), size))
    counts = np.stack([np.bincount(drawn, minlength=size) for drawn in sets], axis=1)
    ways = [
        math.factorial(size) / math.prod(math.factorial(int(n)) for n in column)
        for column in counts.T
    ]
    return counts.astype("float64"), np.array(ways) / float(size) ** size


def weighted_tails(outcomes: np.ndarray, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5th and 97.5th percentile of a known distribution, at each checkpoint.

    Args:
        outcomes: `(num_outcomes, num_checkpoints)`.
        chances: `(num_outcomes,)`.
    """
    order = np.argsort(outcomes, axis=0, kind="stable")
    ranked = np.take_along_axis(outcomes, order, axis=0)
    reached = np.cumsum(chances[order], axis=0)
    # A sum of chances may miss its exact value by rounding.
    at = [np.argmax(reached >= tail - 1e-12, axis=0) for tail in TAILS]
    low, high = (np.take_along_axis(ranked, index[None], axis=0)[0] for index in at)
    return low, high


def tails(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5th and 97.5th percentile over the resamples, at each checkpoint."""
    low, high = np.percentile(draws, [100 * tail for tail in TAILS], axis=0)
    return low, high


def check(scores: np.ndarray, strata: np.ndarray) -> None:
    """ValueError where scores and strata are not what `interval` asks for."""
    if scores.ndim != 2 or scores.size == 0 or strata.shape != scores.shape[:1]:
        raise ValueError(
            "scores must be (num_runs, num_checkpoints), none of them 0, strata (num_runs,); "
            f"got {scores.shape} and {strata.shape}"
        )
    if strata[0] != 0 or not np.isin(np.diff(strata), (0, 1)).all():
        raise ValueError("strata must ascend from 0 without a gap")
    if not np.isfinite(scores).all():
        run, checkpoint = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"scores hold {scores[run, checkpoint]} at run {run} (task {strata[run]}), "
            f"checkpoint {checkpoint}"
        )


def _resampled(
    function: Statistic, scores: np.ndarray, strata: np.ndarray, bootstrap: Bootstrap, lane: int = 0
) -> np.ndarray:
    """The statistic of every resample: `(reps, num_checkpoints)`."""
    counts = resamples(tuple(np.bincount(strata)), bootstrap, lane)
    blocks = [counts[:, at].astype(_DTYPE) for at in _blocks(bootstrap.reps)]
    return np.concatenate([function(scores, strata, block) for block in blocks])


def _blocks(reps: int) -> list[slice]:
    """Consecutive slices of at most `_BLOCK` resamples."""
    return [slice(start, start + _BLOCK) for start in range(0, reps, _BLOCK)]
