"""Difference of two means with its t-interval, equivalence test and sample-size estimate.

Both sides have only a few seeds per task, so differences get Welch's t-interval, which, unlike a
bootstrap of three values, has its nominal coverage for Gaussian scores. The verdict "reproduced"
requires evidence: two one-sided tests at 5 % each (TOST, Schuirmann 1987) must place the difference
within the margin, which is the case if its 90 % interval lies inside the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["reproduced", "worse", "better", "not enough data"]
WORST_FIRST: tuple[Verdict, ...] = ("worse", "not enough data", "better", "reproduced")
MOST_SEEDS = 100
"""Largest number of seeds per task that `seeds_needed` considers."""


@dataclass(frozen=True)
class Difference:
    """Our mean minus the other mean, in points from 0 to 100.

    Attributes:
        value: difference of the means.
        error: its standard error; NaN if a side has a single seed.
        freedom: degrees of freedom of the error (Welch–Satterthwaite).
    """

    value: float
    error: float
    freedom: float

    def interval(self, level: float) -> tuple[float, float]:
        """Return the two-sided t-interval; NaN if there is no standard error."""
        if np.isnan(self.error):
            return float("nan"), float("nan")
        width = self.error * _quantile((1 + level) / 2, self.freedom)
        return self.value - width, self.value + width

    def verdict(self, margin: float) -> Verdict:
        """Return the result of the equivalence test.

        Args:
            margin: largest difference, in points, that counts as equivalent.

        Returns:
            "reproduced" if the 90 % interval lies within the margin; else "worse" or "better" if
            the 95 % interval excludes zero; else "not enough data".
        """
        low, high = self.interval(0.90)
        if -margin < low and high < margin:
            return "reproduced"
        low, high = self.interval(0.95)
        if high < 0:
            return "worse"
        return "better" if low > 0 else "not enough data"


def difference(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Return the difference of two means on one task (Welch 1947).

    error = √(s₁²/n₁ + s₂²/n₂), with the sample variances s² and the numbers of seeds n.

    Args:
        ours: final scores of our seeds, in points, `(num_seeds,)`.
        theirs: final scores of the other side, in points, `(num_seeds,)`.
    """
    value = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return Difference(value, float("nan"), float("nan"))
    terms = [float(np.var(side, ddof=1)) / len(side) for side in (ours, theirs)]
    return Difference(value, float(np.sqrt(sum(terms))), _freedom(terms, (len(ours), len(theirs))))


def difference_from(ours: np.ndarray, published: float) -> Difference:
    """Return the difference of our mean from a number that is published without a spread.

    The number counts as exact, so error = s / √n, with n − 1 degrees of freedom.

    Args:
        ours: scores of our seeds, in points, `(num_seeds,)`.
        published: the number, in points.
    """
    count, value = len(ours), float(np.mean(ours)) - published
    if count < 2:
        return Difference(value, float("nan"), float("nan"))
    return Difference(value, float(np.std(ours, ddof=1) / np.sqrt(count)), count - 1)


def mean_difference(tasks: Sequence[Difference]) -> Difference:
    """Return the mean over tasks of independent differences.

    With M tasks, error = √(Σ error_m²) / M and freedom = (Σ error_m²)² / Σ (error_m⁴ / freedom_m).

    Args:
        tasks: at least one difference; if any of them has a single seed, the mean has no standard
            error.
    """
    value = float(np.mean([task.value for task in tasks]))
    variances = np.array([task.error for task in tasks]) ** 2
    total = float(variances.sum())
    denominator = np.sum(
        [v**2 / t.freedom for v, t in zip(variances, tasks, strict=True) if t.freedom > 0]
    )
    freedom = total**2 / denominator if denominator > 0 else float("inf")
    return Difference(value, float(np.sqrt(total)) / len(tasks), float(freedom))


def seeds_needed(ours: np.ndarray, theirs: np.ndarray, margin: float) -> int | None:
    """Return how many of our seeds, existing ones included, would decide an open verdict.

    The estimate assumes that the difference and our variance stay as they are.

    Args:
        ours: final scores of our seeds, in points, `(num_seeds,)`.
        theirs: final scores of the other side, in points, whose number of seeds is fixed.
        margin: margin of the equivalence test, in points, as in `Difference.verdict`.

    Returns:
        None if more than `MOST_SEEDS` would be needed, or if a side has a single seed.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    value = float(np.mean(ours) - np.mean(theirs))
    variance, other_term = float(np.var(ours, ddof=1)), float(np.var(theirs, ddof=1)) / len(theirs)
    for count in range(len(ours), MOST_SEEDS + 1):
        terms = [variance / count, other_term]
        freedom = _freedom(terms, (count, len(theirs)))
        projected = Difference(value, float(np.sqrt(sum(terms))), freedom)
        if projected.verdict(margin) != "not enough data":
            return count
    return None


def _freedom(terms: Sequence[float], counts: Sequence[int]) -> float:
    """Return the Welch–Satterthwaite degrees of freedom; infinite if the variance is zero.

    With aᵢ = sᵢ² / nᵢ, they are (Σ aᵢ)² / Σ (aᵢ² / (nᵢ − 1)).
    """
    denominator = sum(term**2 / (count - 1) for term, count in zip(terms, counts, strict=True))
    return sum(terms) ** 2 / denominator if denominator > 0 else float("inf")


def _quantile(level: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution."""
    return float(stats.t.ppf(level, freedom) if np.isfinite(freedom) else stats.norm.ppf(level))
