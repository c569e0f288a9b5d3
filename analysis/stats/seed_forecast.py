"""Forecast of open verdicts: which outcome more seeds of ours would settle, and how surely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.equivalence import LEVEL, MOST_SEEDS, Verdict, p_values, quantile

COUNTS = (3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, MOST_SEEDS)
"""Numbers of seeds that are considered."""
SURE, LIKELY = 0.8, 0.5
"""Probabilities with which the upper and the lower number of seeds settle a verdict."""
_FUTURES = 400
OUTCOMES: tuple[Verdict, ...] = ("reproduced", "worse", "better")


@dataclass(frozen=True)
class Forecast:
    """What more seeds of ours would settle.

    Attributes:
        low: seeds that settle the verdict with the probability `LIKELY`.
        high: seeds that settle it with the probability `SURE`, or `MOST_SEEDS`.
        outcome: most probable verdict with `high` seeds.
        probability: probability of that verdict.
    """

    low: int
    high: int
    outcome: Verdict
    probability: float

    def __str__(self) -> str:
        """Return for example `5 to 10: reproduced (83 %)`."""
        span = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        return f"{span}: {self.outcome} ({100 * self.probability:.0f} %)"


def forecast(
    ours: np.ndarray,
    theirs: np.ndarray,
    margin: float,
    least: tuple[float, float],
    level: float = LEVEL,
) -> Forecast | None:
    """Return how many of our seeds, existing ones included, would settle an open verdict.

    Futures are drawn from the predictive distribution of Gaussian scores: the variance
    s² (n − 1) / χ², the mean from the normal distribution around the present mean. The published
    seeds stay as they are.

    Args:
        ours: scores of our seeds, in points, `(num_seeds,)`.
        theirs: scores of the published seeds, in points.
        margin: margin of the equivalence test, in points.
        least: smallest variance of each side, in points².
        level: p-value below which a difference is significant, corrected for other tests.

    Returns:
        None if `MOST_SEEDS` settle it with less than the probability `LIKELY`, or if a side has a
        single seed.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    rng = np.random.default_rng(0)
    counts = [count for count in COUNTS if count > len(ours)]
    shares = [_shares(ours, theirs, margin, least, level, count, rng) for count in counts]
    settled = [sum(share) for share in shares]
    likely = next((i for i, sure in enumerate(settled) if sure >= LIKELY), None)
    if likely is None:
        return None
    sure = next((i for i, share in enumerate(settled) if share >= SURE), len(counts) - 1)
    best = int(np.argmax(shares[sure]))
    return Forecast(counts[likely], counts[sure], OUTCOMES[best], shares[sure][best])


def _shares(
    ours: np.ndarray,
    theirs: np.ndarray,
    margin: float,
    least: tuple[float, float],
    level: float,
    count: int,
    rng: np.random.Generator,
) -> list[float]:
    """Return the share of the futures with `count` seeds in which each of `OUTCOMES` is reached."""
    present, more = len(ours), count - len(ours)
    variance = max(float(np.var(ours, ddof=1)), least[0])
    sigma2 = variance * (present - 1) / rng.chisquare(present - 1, _FUTURES)
    center = ours.mean() + np.sqrt(sigma2 / present) * rng.standard_normal(_FUTURES)
    new_mean = center + np.sqrt(sigma2 / more) * rng.standard_normal(_FUTURES)
    new_squares = sigma2 * (rng.chisquare(more - 1, _FUTURES) if more > 1 else 0.0)
    mean = (present * ours.mean() + more * new_mean) / count
    between = present * more / count * (new_mean - ours.mean()) ** 2
    squares = (present - 1) * float(np.var(ours, ddof=1)) + new_squares + between
    own = np.maximum(squares / (count - 1), least[0]) / count
    other = max(float(np.var(theirs, ddof=1)), least[1]) / len(theirs)
    error = np.sqrt(own + other)
    freedom = (own + other) ** 2 / (own**2 / (count - 1) + other**2 / (len(theirs) - 1))
    value = mean - theirs.mean()
    equivalent = np.abs(value) + quantile(1 - LEVEL, freedom) * error < margin
    significant = ~equivalent & (p_values(value, error, freedom) < level)
    found = (equivalent, significant & (value < 0), significant & (value > 0))
    return [float(np.mean(outcome)) for outcome in found]
