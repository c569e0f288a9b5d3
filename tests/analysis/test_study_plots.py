"""Figure of a study's path."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.figures.page import paper_style
from analysis.figures.study_plots import study_path
from analysis.figures.styles import Layout

DECISIONS = pd.DataFrame(
    [
        (2, "no-x", -10.0, -60.0, 40.0, "next look"),
        (3, "no-x", -12.0, -16.0, -8.0, "supported"),
        (2, "same-x", 1.0, -20.0, 22.0, "next look"),
        (3, "same-x", 0.5, -3.0, 4.0, "not enough seeds"),
    ],
    columns=["seeds", "claim", "difference", "low", "high", "decision"],
)
BOUNDARIES = pd.DataFrame(
    [
        (2, "no-x", "supported", -np.inf, -500.0),
        (2, "no-x", "contradicted", 90.0, np.inf),
        (3, "no-x", "supported", -np.inf, -7.0),
        (3, "no-x", "contradicted", 3.0, np.inf),
        (2, "same-x", "supported", 30.0, -30.0),
        (3, "same-x", "supported", -2.0, 2.0),
        (3, "same-x", "contradicted", 3.0, np.inf),
    ],
    columns=["seeds", "claim", "decision", "low", "high"],
)


def test_regions_are_where_decisions_are_reached() -> None:
    with paper_style():
        page = study_path(DECISIONS, BOUNDARIES, Layout())
    lower, same = page.axes
    assert [ax.get_title(loc="left") for ax in page.axes] == [
        "no-x: supported",
        "same-x: not enough seeds",
    ]
    # The interval of two seeds does not set the range; regions outside of it are not drawn.
    assert lower.get_ylim() == (-1.15 * 16, 1.15 * 16)
    assert [(bar.get_y(), round(bar.get_y() + bar.get_height(), 6)) for bar in lower.patches] == [
        (-1.15 * 16, -7.0),
        (3.0, 1.15 * 16),
    ]
    assert next((bar.get_y(), bar.get_height()) for bar in same.patches) == (-2.0, 4.0)
    assert [tick.get_text() for tick in same.get_xticklabels()] == ["2", "3"]


def test_regions_differ_without_color() -> None:
    with paper_style():
        page = study_path(DECISIONS, BOUNDARIES, Layout())
    (legend,) = page.legends
    assert len({patch.get_hatch() for patch in legend.get_patches()}) == 2
    hatched = [bar for bar in page.axes[0].patches if bar.get_hatch()]
    assert hatched
    assert all(bar.get_edgecolor()[3] > 0.5 for bar in hatched)
    assert "cut at the edge of the panel" in page.caption


@pytest.mark.parametrize(
    ("published", "label"),
    [(False, "seeds on each side"), (True, "seeds, against the published ones")],
)
def test_the_axis_names_both_sides(published: bool, label: str) -> None:
    """Published seeds do not grow from look to look."""
    with paper_style():
        page = study_path(DECISIONS, BOUNDARIES, Layout(), published=published)
    assert page.labels == (label, "difference (points)")


def test_a_look_without_an_interval_is_a_point() -> None:
    """No score of the claim varies."""
    table = DECISIONS[DECISIONS["claim"] == "no-x"].assign(low=np.nan, high=np.nan)
    nothing = BOUNDARIES[BOUNDARIES["claim"] == "no-x"].assign(low=np.nan, high=np.nan)
    with paper_style():
        (ax,) = study_path(table, nothing, Layout()).axes
    assert ax.get_ylim() == (-1.15 * 12, 1.15 * 12)
    assert not ax.patches
