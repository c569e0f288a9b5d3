"""Figure of a study's path: the difference at each look, and the boundaries of its decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from analysis.figures.page import Page, canvas, finish_figure, set_title
from analysis.figures.styles import Layout
from analysis.stats.group_sequential import CONTRADICTED, HIGHER, LOWER, SAME, SUPPORTED

_WIDTH, _HEIGHT = 1.8, 1.7
"""Least width and height of a panel, in inches."""
_LEAST = 8.0
"""Least range of the differences, in points."""
_COLORS = {
    SUPPORTED: "#2f7d4f",
    LOWER: "#2f7d4f",
    HIGHER: "#2f7d4f",
    CONTRADICTED: "#c0563a",
    SAME: "#6f6f6f",
}
_HATCHES = {CONTRADICTED: "////", SAME: "...."}
"""With hatches, the regions differ in grey too."""


def study_path(
    decisions: pd.DataFrame, boundaries: pd.DataFrame, layout: Layout, *, published: bool = False
) -> Page:
    """Draw one panel per claim: differences with 95 % intervals, and the regions that decide.

    Args:
        decisions: columns seeds, claim, difference, low, high, decision, of complete looks.
        boundaries: columns seeds, claim, decision, low, high: the differences between low and high
            lead to the decision.
        layout: width of the page.
        published: whether the base are published seeds, whose number is the same at each look.
    """
    claims = list(dict.fromkeys(decisions["claim"]))
    page, axes = canvas(len(claims), layout, least_width=_WIDTH, height=_HEIGHT)
    looks = sorted(boundaries["seeds"].unique())
    for ax, claim in zip(axes, claims, strict=True):
        own = decisions[decisions["claim"] == claim]
        regions = boundaries[boundaries["claim"] == claim]
        bound = shown_range(own)
        for row in regions.itertuples():
            place = looks.index(row.seeds)
            low, high = max(row.low, -bound), min(row.high, bound)
            if low < high:
                ax.bar(place, high - low, 0.9, low, **_region(row.decision))
        places = [looks.index(seeds) for seeds in own["seeds"]]
        value, low, high = own[["difference", "low", "high"]].to_numpy().T
        ax.errorbar(
            places,
            value,
            yerr=[value - low, high - value],
            color="black",
            marker="o",
            markersize=3,
            linewidth=1,
            capsize=2,
        )
        ax.axhline(0, color="black", linewidth=0.5)
        ax.set_xlim(-0.5, len(looks) - 0.5)
        ax.set_ylim(-bound, bound)
        ax.set_xticks(range(len(looks)), [str(seeds) for seeds in looks])
        set_title(page, ax, f"{claim}: {own['decision'].iloc[-1]}")
    sides = "seeds, against the published ones" if published else "seeds on each side"
    page.labels = (sides, "difference (points)")
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(boundaries["decision"]):
        names.setdefault(_COLORS[name], []).append(name)
    handles = [Patch(**_region(alike[0]), label=", ".join(alike)) for alike in names.values()]
    what = (
        "Points: variant minus base, mean over tasks; whiskers: 95 % intervals of a single look, "
        "cut at the edge of the panel. Shaded: differences that decide the claim at a look."
    )
    finish_figure(page, handles, [what])
    return page


def _region(decision: str) -> dict[str, Any]:
    """Return the properties of the region of a decision."""
    color = _COLORS[decision]
    look = {"facecolor": to_rgba(color, 0.22), "edgecolor": to_rgba(color, 0.8), "linewidth": 0}
    return {**look, "hatch": _HATCHES.get(decision)}


def shown_range(own: pd.DataFrame) -> float:
    """Return the largest difference shown: all estimates, and the intervals after the first look.

    With two seeds, an interval can be ten times as wide as the others.
    """
    intervals = own[["low", "high"]].iloc[1:].to_numpy().ravel()
    return 1.15 * float(np.nanmax(np.abs([*own["difference"], *intervals, _LEAST])))
