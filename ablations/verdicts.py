"""Seeds that open claims on ablations need, and error rates of their verdicts.

`analysis/stats/ablation_claims.py` defines the verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.stats.ablation_claims import MARGIN, OPEN, Expected, judge
from analysis.stats.equivalence import MOST_SEEDS, Difference, difference, mean_difference

Pair = tuple[np.ndarray, np.ndarray]
"""Final scores of variant and default on one task, in points, `(num_seeds,)` each."""


def seeds_needed(
    pairs: Sequence[Pair], expected: Expected | None, margin: float = MARGIN
) -> int | None:
    """Compute the seeds per side, existing ones included, that would decide an open verdict.

    Assumes that the mean difference and the standard deviations stay the same.

    Args:
        pairs: final scores of variant and default on each task.
        expected: claimed score of the variant relative to the default; None without a claim.
        margin: margin in points.

    Returns:
        The number of seeds; None if more than `MOST_SEEDS` are needed, a side has a single seed, or
        no score varies.
    """
    counts = [len(side) for pair in pairs for side in pair]
    if min(counts) < 2 or not any(np.ptp(side) > 0 for pair in pairs for side in pair):
        return None
    for count in range(max(counts), MOST_SEEDS + 1):
        differences = [_with_seeds(pair, count) for pair in pairs]
        if judge(mean_difference(differences), expected, margin) != OPEN:
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
    """Estimate how often each verdict occurs, by simulating studies with Gaussian scores.

    Args:
        effect: true difference of variant and default on every task, in points.
        spread: standard deviation of the scores of a task over seeds, in points, on both sides.
        num_seeds: seeds on each side.
        num_tasks: tasks per study.
        expected: claimed score of the variant relative to the default; None without a claim.
        margin: margin in points.
        repeats: number of simulated studies.
        seed: seed of the random generator.

    Returns:
        Fraction of the studies by verdict.
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
    """Return the difference on one task as if both sides had `count` seeds, with equal spread."""
    variances = [float(np.var(side, ddof=1)) / count for side in pair]
    total = sum(variances)
    denominator = sum(v**2 for v in variances) / (count - 1)
    freedom = total**2 / denominator if denominator else float("inf")  # Welch-Satterthwaite
    value = float(pair[0].mean() - pair[1].mean())
    return Difference(value, float(np.sqrt(total)), freedom)
