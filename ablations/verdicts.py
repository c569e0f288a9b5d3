"""What the runs say of a claim: supported, contradicted, or not enough seeds, and how many more.

A claim is that a variant scores lower than the default, or that it scores the same. Differences
are in points from 0 to 100 with Welch's t-interval, of the mean over tasks. "Lower" is supported
where the 95 % interval lies below zero, "the same" where two one-sided tests at 5 % place it within
the margin. A claim is contradicted where the data exclude what it says: a loss of the margin
or more, or a difference of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis.stats.equivalence import MOST_SEEDS, Difference, difference, mean_difference

Expected = Literal["lower", "same"]
ClaimVerdict = Literal[
    "supported", "contradicted", "lower", "higher", "no difference", "not enough seeds"
]
OPEN: ClaimVerdict = "not enough seeds"
MARGIN = 5.0
"""Points: a smaller difference counts as none."""

Pair = tuple[np.ndarray, np.ndarray]
"""Final scores of variant and default on one task, in points."""


def judge(found: Difference, expected: Expected | None, margin: float = MARGIN) -> ClaimVerdict:
    """The verdict on a claim, or without one what the data show.

    Args:
        found: variant minus default, mean over tasks.
        expected: what is claimed of the variant; None for nothing.
        margin: in points.

    Returns:
        without a claim "lower" or "higher" where the 95 % interval leaves out zero, else "no
        difference" where the 90 % interval lies within the margin.
    """
    low, high = found.interval(0.95)
    least, most = found.interval(0.90)
    within = -margin < least and most < margin
    if expected == "lower":
        if high < 0:
            return "supported"
        return "contradicted" if least > -margin else OPEN
    if expected == "same":
        if within:
            return "supported"
        return "contradicted" if high < 0 or low > 0 else OPEN
    if high < 0 or low > 0:
        return "lower" if high < 0 else "higher"
    return "no difference" if within else OPEN


def seeds_needed(
    pairs: Sequence[Pair], expected: Expected | None, margin: float = MARGIN
) -> int | None:
    """Seeds on each side that would settle an open verdict, those there are included.

    Supposes that differences and spreads stay what they are.

    Args:
        pairs: of each task.
        expected: see `judge`.
        margin: likewise.

    Returns:
        None where more than `MOST_SEEDS` would be needed, or a side has a single seed.
    """
    counts = [len(side) for pair in pairs for side in pair]
    if min(counts) < 2:
        return None
    for count in range(max(counts), MOST_SEEDS + 1):
        parts = [_with_seeds(pair, count) for pair in pairs]
        if judge(mean_difference(parts), expected, margin) != OPEN:
            return count
    return None


def error_rates(
    effect: float,
    spread: float,
    num_seeds: int,
    num_tasks: int,
    expected: Expected | None,
    *,
    margin: float = MARGIN,
    repeats: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """How often each verdict is given, by simulation of Gaussian scores.

    Args:
        effect: true difference on every task, in points.
        spread: standard deviation of a task's scores over seeds, in points, on both sides.
        num_seeds: on each side.
        num_tasks: whose mean is judged.
        expected: see `judge`.
        margin: likewise.
        repeats: number of simulated studies.
        seed: of the generator.

    Returns:
        share of the studies by verdict.
    """
    rng = np.random.default_rng(seed)
    scores = spread * rng.standard_normal((repeats, num_tasks, 2, num_seeds))
    scores[:, :, 0] += effect
    verdicts = [
        judge(mean_difference([difference(*task) for task in study]), expected, margin)
        for study in scores
    ]
    return {verdict: verdicts.count(verdict) / repeats for verdict in dict.fromkeys(verdicts)}


def _with_seeds(pair: Pair, count: int) -> Difference:
    """The difference on one task if both sides had so many seeds of the same mean and spread."""
    variances = [float(np.var(side, ddof=1)) / count for side in pair]
    total = sum(variances)
    below = sum(v**2 for v in variances) / (count - 1)
    value = float(pair[0].mean() - pair[1].mean())
    return Difference(value, float(np.sqrt(total)), total**2 / below if below else float("inf"))
