"""Verdicts on claims about ablations.

A claim states that a variant scores lower than the default, or the same. It is judged by the mean
difference over tasks, in points from 0 to 100, with Welch's t-intervals. "Lower" is supported if
the 95 % interval lies below zero. "Same" is supported if two one-sided tests at 5 % place the
difference within the margin, that is, if its 90 % interval lies within the margin. A claim is
contradicted if the data exclude it: for "lower", a loss of the margin or more; for "same", a
difference of zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from analysis.stats.equivalence import Difference

Expected = Literal["lower", "same"]
ClaimVerdict = Literal[
    "supported", "contradicted", "lower", "higher", "no difference", "not enough seeds"
]
OPEN: ClaimVerdict = "not enough seeds"
MARGIN = 5.0
"""Default margin in points: a smaller difference counts as no difference."""


def judge(found: Difference, expected: Expected | None, margin: float = MARGIN) -> ClaimVerdict:
    """Judge the claim on a variant, or the direction of its effect if there is no claim.

    Args:
        found: score of the variant minus score of the default, mean over tasks.
        expected: claimed score of the variant relative to the default; None without a claim.
        margin: margin in points.

    Returns:
        With a claim "supported", "contradicted" or "not enough seeds", as the module docstring
        defines. Without a claim "lower" or "higher" if the 95 % interval excludes zero, else "no
        difference" if the 90 % interval lies within the margin, else "not enough seeds".
    """
    low, high = found.interval(0.95)
    low_90, high_90 = found.interval(0.90)
    within = -margin < low_90 and high_90 < margin
    if expected == "lower":
        if high < 0:
            return "supported"
        return "contradicted" if low_90 > -margin else OPEN
    if expected == "same":
        if within:
            return "supported"
        return "contradicted" if high < 0 or low > 0 else OPEN
    if high < 0 or low > 0:
        return "lower" if high < 0 else "higher"
    return "no difference" if within else OPEN
