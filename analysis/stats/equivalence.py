"""Room of the verdicts: ours against theirs, with an interval, an equivalence test, seeds to add.

Both sides are a few seeds a task, so differences have Welch's t-interval: unlike a bootstrap of
three values it covers what it says (for Gaussian scores). "Reproduced" is shown, not assumed: two
one-sided tests at 5 % each (Schuirmann 1987) must place the difference within the margin, which
they do where its 90 % interval lies inside.
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
"""Beyond so many seeds a task, none are asked for."""


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, in points from 0 to 100.

    Attributes:
        value: difference of the means.
        error: its standard error; NaN where a side has a single seed.
        freedom: degrees of freedom of the error, by Welch and Satterthwaite.
    """

    value: float
    error: float
    freedom: float

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided t-interval; NaN where there is no standard error."""
        if np.isnan(self.error):
            return float("nan"), float("nan")
        width = self.error * _quantile((1 + level) / 2, self.freedom)
        return self.value - width, self.value + width

    def verdict(self, margin: float) -> Verdict:
        """What the data say.

        Args:
            margin: largest difference, in points, that still counts as reproduced.

        Returns:
            "reproduced" where the 90 % interval lies within the margin; else "worse" or "better"
            where the 95 % interval leaves out zero; else "not enough data".
        """
        low, high = self.interval(0.90)
        if -margin < low and high < margin:
            return "reproduced"
        low, high = self.interval(0.95)
        if high < 0:
            return "worse"
        return "better" if low > 0 else "not enough data"


def difference(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Difference of two means on one task (Welch 1947).

    Args:
        ours: final scores of our seeds, in points, `(num_seeds,)`.
        theirs: likewise.
    """
    value = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return Difference(value, float("nan"), float("nan"))
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (ours, theirs)]
    return Difference(value, float(np.sqrt(sum(parts))), _freedom(parts, (len(ours), len(theirs))))


def mean_difference(tasks: Sequence[Difference]) -> Difference:
    """Mean over tasks of their differences, which are independent of each other.

    Args:
        tasks: one or more; with a single seed on any, the mean has no standard error.
    """
    value = float(np.mean([task.value for task in tasks]))
    variances = np.array([task.error for task in tasks]) ** 2
    total = float(variances.sum())
    below = np.sum(
        [v**2 / t.freedom for v, t in zip(variances, tasks, strict=True) if t.freedom > 0]
    )
    freedom = total**2 / below if below > 0 else float("inf")
    return Difference(value, float(np.sqrt(total)) / len(tasks), float(freedom))


def seeds_needed(ours: np.ndarray, theirs: np.ndarray, margin: float) -> int | None:
    """Seeds of ours, those there are included, that would settle a task whose verdict is open.

    Supposes that the difference and our spread stay what they are.

    Args:
        ours: final scores of our seeds, in points.
        theirs: likewise, and of as many seeds as there will ever be.
        margin: as for `Difference.verdict`.

    Returns:
        None where more than `MOST_SEEDS` would be needed, or a side has a single seed.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    value = float(np.mean(ours) - np.mean(theirs))
    spread, fixed = float(np.var(ours, ddof=1)), float(np.var(theirs, ddof=1)) / len(theirs)
    for count in range(len(ours), MOST_SEEDS + 1):
        parts = [spread / count, fixed]
        freedom = _freedom(parts, (count, len(theirs)))
        found = Difference(value, float(np.sqrt(sum(parts))), freedom)
        if found.verdict(margin) != "not enough data":
            return count
    return None


def _freedom(parts: Sequence[float], counts: Sequence[int]) -> float:
    """Welch and Satterthwaite's degrees of freedom, infinite where nothing varies."""
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return sum(parts) ** 2 / below if below > 0 else float("inf")


def _quantile(level: float, freedom: float) -> float:
    """Of Student's t."""
    return float(stats.t.ppf(level, freedom) if np.isfinite(freedom) else stats.norm.ppf(level))
