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
from numpy.typing import ArrayLike

from analysis.stats.intervals import ROUNDING

Verdict = Literal["reproduced", "worse", "better", "not enough data"]
WORST_FIRST = ("worse", "not enough data", "better", "reproduced so far", "reproduced")
"""Verdicts on tasks; "reproduced so far" is "reproduced" below the full budget."""
MOST_SEEDS = 100
"""Largest number of seeds per task that is considered as a remedy."""
MOST_POINTS = 100.0
"""Largest possible difference of two scores, in points; intervals end there."""
LEVEL = 0.05
"""Level of the two-sided tests; equivalence is tested by two one-sided tests at this level."""


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
        """Return the two-sided t-interval; NaN if there is no standard error.

        It ends at the range of possible differences, unless the difference itself is outside, as
        in a task whose scores exceed its `score_range`.
        """
        if np.isnan(self.error):
            return float("nan"), float("nan")
        width = self.error * float(quantile((1 + level) / 2, self.freedom))
        low = max(self.value - width, min(-MOST_POINTS, self.value))
        high = min(self.value + width, max(MOST_POINTS, self.value))
        return low, high

    @property
    def p_value(self) -> float:
        """Two-sided p-value of a difference of zero; NaN if there is no standard error."""
        parts = (self.value, self.error, self.freedom)
        return float(p_values(*(np.array([part]) for part in parts))[0])

    def verdict(self, margin: float, p_value: float | None = None) -> Verdict:
        """Return the result of the equivalence test.

        Args:
            margin: largest difference, in points, that counts as equivalent.
            p_value: p-value of a difference of zero, corrected for other tests; None for `p_value`.

        Returns:
            "reproduced" if the 90 % interval lies within the margin; else "worse" or "better" if
            the p-value is below `LEVEL` (without correction, if the 95 % interval excludes zero);
            else "not enough data".
        """
        low, high = self.interval(1 - 2 * LEVEL)
        if -margin < low and high < margin:
            return "reproduced"
        if (self.p_value if p_value is None else p_value) < LEVEL:
            return "worse" if self.value < 0 else "better"
        return "not enough data"


def difference(
    ours: np.ndarray, theirs: np.ndarray, least: tuple[float, float] = (0.0, 0.0)
) -> Difference:
    """Return the difference of two means on one task (Welch 1947).

    Args:
        ours: final scores of our seeds, in points, `(num_seeds,)`.
        theirs: final scores of the other side, in points, `(num_seeds,)`.
        least: smallest variance of each side, in points² (see `least_variance.py`).
    """
    return Difference(*(float(part) for part in welch(ours, theirs, least)))


def welch(
    ours: np.ndarray, theirs: np.ndarray, least: tuple[ArrayLike, ArrayLike] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the differences of means with standard errors and degrees of freedom, each `(...,)`.

    error = √(a₁ + a₂) and freedom = (a₁ + a₂)² / (a₁²/(n₁ − 1) + a₂²/(n₂ − 1)), with aᵢ = sᵢ²/nᵢ,
    the sample variances s² and the numbers of seeds n (Welch–Satterthwaite).

    Args:
        ours: scores of our seeds, `(..., num_seeds)`.
        theirs: scores of the other side, `(..., num_seeds)`.
        least: smallest variance of each side, `(...,)`.
    """
    if min(ours.shape[-1], theirs.shape[-1]) < 2:
        value = np.mean(ours, -1) - np.mean(theirs, -1)
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    variances = [
        np.maximum(np.var(side, -1, ddof=1), smallest)
        for side, smallest in zip((ours, theirs), least, strict=True)
    ]
    return welch_with(ours, theirs, variances, [side.shape[-1] - 1 for side in (ours, theirs)])


def welch_with(
    ours: np.ndarray,
    theirs: np.ndarray,
    variances: Sequence[np.ndarray],
    freedoms: Sequence[float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `welch` returns, with given variances.

    Args:
        ours: scores of our seeds, `(..., num_seeds)`.
        theirs: scores of the other side, `(..., num_seeds)`.
        variances: variance of each side, `(...,)`.
        freedoms: degrees of freedom of these variances.
    """
    value = np.mean(ours, -1) - np.mean(theirs, -1)
    total, denominator = np.zeros_like(value), np.zeros_like(value)
    for side, variance, freedom in zip((ours, theirs), variances, freedoms, strict=True):
        term = variance / side.shape[-1]
        total, denominator = total + term, denominator + term**2 / freedom
    return value, np.sqrt(total), _ratio(total**2, denominator)


def p_values(value: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the two-sided p-values of differences of zero; 0 or 1 if the standard error is zero.

    Args:
        value: differences, `(...,)`.
        error: their standard errors, `(...,)`; NaN gives NaN.
        freedom: their degrees of freedom, `(...,)`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where((error == 0) & (value == 0), 0.0, -np.abs(value) / error)
    return 2 * probability(statistic, freedom)


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


def if_spread(gap: Difference) -> Difference:
    """Return a difference, without a standard error if no score varies.

    Equal scores of a few seeds do not show that all seeds would have this score.
    """
    if gap.error > ROUNDING:
        return gap
    return Difference(gap.value, float("nan"), float("nan"))


def mean_difference(tasks: Sequence[Difference]) -> Difference:
    """Return the mean over tasks of independent differences; see `mean_over_tasks`.

    Args:
        tasks: at least one difference; if any of them has a single seed, the mean has no standard
            error.
    """
    columns = np.array([(task.value, task.error, task.freedom) for task in tasks]).T
    return Difference(*(float(part) for part in mean_over_tasks(*columns)))


def mean_over_tasks(
    value: np.ndarray, error: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means of independent differences with errors and degrees of freedom, each `(...,)`.

    With M tasks, error = √(Σ error_m²) / M and freedom = (Σ error_m²)² / Σ (error_m⁴ / freedom_m).

    Args:
        value: differences, `(..., num_tasks)`.
        error: their standard errors, `(..., num_tasks)`.
        freedom: their degrees of freedom, `(..., num_tasks)`.
    """
    variance = error**2
    total = variance.sum(-1)
    denominator = np.where(variance > 0, variance**2 / freedom, 0.0).sum(-1)
    mean_error = np.sqrt(total) / value.shape[-1]
    return value.mean(-1), mean_error, _ratio(total**2, denominator)


def quantile(level: ArrayLike, freedom: ArrayLike) -> np.ndarray:
    """Return quantiles of Student's t distribution; with infinite freedom, of the normal one."""
    from scipy import special  # here, so that --help is fast

    finite = np.where(np.isinf(freedom), 1.0, freedom)
    return np.where(np.isinf(freedom), special.ndtri(level), special.stdtrit(finite, level))


def probability(statistic: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the distribution function of Student's t; with infinite freedom, of the normal."""
    from scipy import special

    finite = np.where(np.isinf(freedom), 1.0, freedom)
    below = np.where(np.isneginf(statistic), 0.0, special.stdtr(finite, statistic))
    return np.where(np.isinf(freedom), special.ndtr(statistic), below)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return degrees of freedom: the quotient, infinite if all variances are zero."""
    positive = denominator > 0
    safe = np.where(positive | np.isnan(denominator), denominator, 1.0)
    return np.where(positive | np.isnan(denominator), numerator / safe, np.inf)
