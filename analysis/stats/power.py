"""Power of planned comparisons by Welch's tests: effects that are found, and seeds that are needed.

Scores are Gaussian. Given the sample variances, the difference of the means is independent of them
and Gaussian, so the power is the mean of a normal probability over the distribution of the sample
variances. This holds for Welch's test exactly, up to the noise of `SAMPLES` samples (0.5 points at
most); the noncentral t distribution with the true degrees of freedom overestimates the power with
few seeds, because the test estimates its degrees of freedom (10 points for three seeds of tasks
with unequal spreads).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.stats.ablation_claims import Expected
from analysis.stats.equivalence import LEVEL, MOST_SEEDS, mean_over_tasks, quantile
from analysis.stats.margins import POWER

SAMPLES = 4_000
_BISECTIONS = 40


@dataclass(frozen=True)
class Sides:
    """The two sides of a planned comparison of means over tasks.

    Attributes:
        variances: variance of the scores over seeds, in points², `(2, num_tasks)`.
        counts: number of seeds, `(2, num_tasks)`.
        least: smallest variance that the test assumes, in points², `(2, num_tasks)` (see
            `least_variance.py`).
    """

    variances: np.ndarray
    counts: np.ndarray
    least: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, num_seeds: int) -> Sides:
        """Build a comparison with the same number of seeds on both sides.

        Args:
            first: variances of the first side, in points², `(num_tasks,)`.
            second: variances of the second side, `(num_tasks,)`.
            num_seeds: seeds of each task on each side.
        """
        variances = np.array([first, second], float)
        return cls(variances, np.full(variances.shape, num_seeds), np.zeros_like(variances))

    def with_seeds(self, num_seeds: int, *, both: bool) -> Sides:
        """Return the comparison with other numbers of seeds, on the first side or on both."""
        counts = self.counts.copy()
        counts[: 1 + both] = num_seeds
        return Sides(self.variances, counts, self.least)

    def scaled(self, factor: float) -> Sides:
        """Return the comparison with all standard deviations multiplied by a factor."""
        return Sides(factor**2 * self.variances, self.counts, factor**2 * self.least)

    @property
    def error(self) -> float:
        """True standard error of the difference of the means, in points."""
        return math.sqrt((self.variances / self.counts).sum()) / self.variances.shape[1]

    def reaches(self, level: float) -> np.ndarray:
        """Return samples of the half-width of the two-sided t-interval, in points, `(SAMPLES,)`.

        Args:
            level: level of the two-sided test, that is, 1 − the level of the interval.
        """
        freedom = self.counts - 1
        rng = np.random.default_rng(0)
        factors = rng.chisquare(freedom, (SAMPLES, *freedom.shape)) / freedom
        terms = np.maximum(self.variances * factors, self.least) / self.counts
        total = terms.sum(1)
        denominator = (terms**2 / freedom).sum(1)
        constant = denominator == 0
        per_task = np.where(constant, np.inf, total**2 / np.where(constant, 1.0, denominator))
        _, error, found = mean_over_tasks(np.zeros_like(total), np.sqrt(total), per_task)
        return quantile(1 - level / 2, found) * error


def power(sides: Sides, effect: float, claim: Expected | None, level: float = LEVEL) -> float:
    """Return the probability that the test finds an effect.

    Args:
        sides: planned comparison, with at least two seeds on each side.
        effect: in points. For "lower" the true loss of the first side, and without a claim the
            true difference. For "same" the margin; the true difference is zero.
        claim: "lower" is found if the two-sided interval at `level` lies below zero; "same" if two
            one-sided tests at `level` place the difference within the margin; without a claim, a
            difference is found if that interval excludes zero.
        level: level of the test.
    """
    error = sides.error
    if error == 0:
        return float(effect > 0)
    return _power(effect, error, _reach(sides, claim, level), claim)


def _reach(sides: Sides, claim: Expected | None, level: float) -> np.ndarray:
    """Return samples of the half-width of the interval that decides the claim, in points."""
    return sides.reaches(2 * level if claim == "same" else level)


def _power(effect: float, error: float, reach: np.ndarray, claim: Expected | None) -> float:
    """Return the mean over the sample variances of the probability that the effect is found."""
    from scipy.special import ndtr  # here, so that --help is fast

    if claim == "same":
        return float(np.mean(2 * ndtr(np.maximum(effect - reach, 0) / error) - 1))
    found = ndtr((effect - reach) / error)
    if claim is None:
        found = found + ndtr((-effect - reach) / error)
    return float(np.mean(found))


def smallest_effect(sides: Sides, claim: Expected | None, level: float = LEVEL) -> float:
    """Return the smallest effect that is found with the probability `POWER`, in points.

    It is proportional to the standard deviations.

    Args:
        sides: planned comparison; a side with a single seed finds no effect (infinity).
        claim: as for `power`; for "same", the result is the smallest margin.
        level: as for `power`.
    """
    if sides.counts.min() < 2:
        return math.inf
    error = sides.error
    if error == 0:
        return 0.0
    reach = _reach(sides, claim, level)
    low, high = 0.0, error
    while _power(high, error, reach, claim) < POWER:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = _power(middle, error, reach, claim) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def seeds_needed(
    sides: Sides, effect: float, claim: Expected | None, level: float = LEVEL, *, both: bool = True
) -> int | None:
    """Return the number of seeds that find an effect with the probability `POWER`.

    Args:
        sides: planned comparison; the numbers of its seeds that are sought do not matter.
        effect: as for `power`.
        claim: as for `power`.
        level: as for `power`.
        both: whether both sides get this number, or the first side only.

    Returns:
        At least 2; None if more than `MOST_SEEDS` are needed.
    """

    def enough(count: int) -> bool:
        return power(sides.with_seeds(count, both=both), effect, claim, level) >= POWER

    if (not both and sides.counts[1].min() < 2) or not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def spread_factors(terms: np.ndarray, freedom: np.ndarray) -> tuple[float, float]:
    """Return by which factors the pooled standard deviation can differ from its estimate.

    With the Satterthwaite degrees of freedom ν = (Σ a)² / Σ (a² / ν_a) of the sum of independent
    variance estimates a, the 95 % interval of the true standard deviation is the estimate times
    √(ν / χ²), with the quantiles of χ² with ν degrees of freedom.

    Args:
        terms: independent estimates in the sum, in points², `(num_terms,)`.
        freedom: degrees of freedom of each, `(num_terms,)`.
    """
    from scipy.special import chdtri

    denominator = float((terms**2 / freedom).sum())
    if denominator == 0:
        return 1.0, 1.0
    pooled = float(terms.sum()) ** 2 / denominator
    return (
        math.sqrt(pooled / float(chdtri(pooled, LEVEL / 2))),
        math.sqrt(pooled / float(chdtri(pooled, 1 - LEVEL / 2))),
    )


def points_text(effect: float) -> str:
    """Return an effect in points as text; larger ones than 100 do not exist."""
    return f"{effect:.1f}" if effect < 10 else f"{effect:.0f}" if effect <= 100 else "over 100"
