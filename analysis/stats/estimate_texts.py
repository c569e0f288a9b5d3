"""Texts of estimates with their intervals: `87.8 [87.3, 88.4]`."""

from __future__ import annotations

from math import isnan, nan

from analysis.stats.bootstrap import has_width
from analysis.stats.coverage import NOMINAL, level_label


def estimate_text(
    value: float, low: float, high: float, coverage: float = nan, *, form: str = ".1f"
) -> str:
    """Return an estimate with its interval, or alone if there is none; empty if it is NaN.

    Args:
        value: the estimate.
        low: lower end of the interval; NaN if there is none.
        high: upper end.
        coverage: measured coverage of the interval, which the text ends with if it is not 95 %; NaN
            if it was not measured.
        form: format of all three numbers.
    """
    if isnan(value):
        return ""
    bounds = bounds_text(low, high, form)
    label = NOMINAL if isnan(coverage) or not bounds else level_label(coverage)
    parts = (f"{value:{form}}", bounds, "" if label == NOMINAL else f"({label})")
    return " ".join(filter(None, parts))


def share_text(share: float) -> str:
    """Return a share in percent, with at most three digits: `2.5 %`; a dash for NaN."""
    return "–" if isnan(share) else f"{100 * share:.3g} %"


def bounds_text(low: float, high: float, form: str = ".1f") -> str:
    """Return an interval; empty if there is none, or if its width is a rounding error.

    Args:
        low: lower end; NaN if there is no interval.
        high: upper end.
        form: format of both numbers.
    """
    return f"[{low:{form}}, {high:{form}}]" if has_width(low, high) else ""
