"""Texts of estimates with their intervals, `87.8 [87.3, 88.4]`, and of the intervals' coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

from analysis.stats.coverage import NOMINAL, STATISTIC_LABELS, Coverage, level_label
from analysis.stats.intervals import has_width
from analysis.stats.selection import Series

_LISTED = 6
"""Intervals without 95 % coverage that a text lists."""


def estimate_text(
    value: float, low: float, high: float, coverage: float = nan, *, form: str = ".1f"
) -> str:
    """Return an estimate with its interval, or alone if there is none; empty if it is NaN.

    Args:
        value: the estimate.
        low: lower end of the interval; NaN if there is none.
        high: upper end.
        coverage: measured coverage of the interval, with which the text ends if it is not 92 to
            98 %; NaN if it was not measured.
        form: format of all three numbers.
    """
    if isnan(value):
        return ""
    bounds = bounds_text(low, high, form)
    parts = (f"{value:{form}}", bounds, bounds and coverage_text(coverage))
    return " ".join(filter(None, parts))


def coverage_text(coverage: float) -> str:
    """Return the measured coverage of an interval, `(87 %)`; empty for 92 to 98 % and NaN."""
    label = NOMINAL if isnan(coverage) else level_label(coverage)
    return "" if label == NOMINAL else f"({label})"


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


def coverage_note(found: Sequence[Coverage], names: Mapping[Series, str]) -> str:
    """Return the coverage of a figure's intervals as text.

    Args:
        found: results of `coverages`.
        names: label of each series.
    """
    note = "Intervals are Student's t with Welch's degrees of freedom"
    if not found:
        return f"{note}, at a nominal level of 95 %; their coverage is not measured."
    shares = [one.share for one in found if one.label == NOMINAL]
    others = sorted((one for one in found if one.label != NOMINAL), key=lambda one: one.share)
    if shares:
        which = f"{len(shares)} of {len(found)}" if others else "they"
        cover = "covers" if others and len(shares) == 1 else "cover"
        note += (
            f"; simulated on these runs, {which} {cover} the true value in {_span(shares)} of cases"
        )
    if not others:
        return f"{note}."
    listed = "; ".join(
        f"{names.get(one.series, one.series[1])}, {one.group} ({one.num_tasks} "
        f"task{'s' * (one.num_tasks > 1)}, {_seeds(one.num_seeds)}, "
        f"{STATISTIC_LABELS[one.statistic]}): {one.label}"
        for one in others[:_LISTED]
    )
    if rest := others[_LISTED:]:
        ends = dict.fromkeys((rest[0].label, rest[-1].label))
        listed += f"; and {len(rest)} more: {' to '.join(ends)}"
    first = (
        "The others are not 95 % intervals, but have" if shares else "Not 95 % intervals, but with"
    )
    return f"{note}. {first} a measured coverage of: {listed}."


def _span(shares: Sequence[float]) -> str:
    """Return the range of shares in percent."""
    low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _seeds(counts: tuple[int, int]) -> str:
    """Return the number of seeds as text."""
    low, high = counts
    return f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"
