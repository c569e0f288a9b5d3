"""Legends: line breaks of labels, height and columns."""

from __future__ import annotations

import pytest
from matplotlib.lines import Line2D

from analysis.figures.legends import LEGEND_SIZE, broken, fit_legend
from analysis.figures.page import canvas, finish_figure, paper_style
from analysis.figures.styles import Layout

LONG = "DreamerV3 (batch_length-32+batch_size-8+model_size-small+train_ratio-256.0)"
ROW = 1.6 * LEGEND_SIZE / 72


def handles(labels: list[str]) -> list[Line2D]:
    return [Line2D([], [], label=label) for label in labels]


@pytest.mark.parametrize(
    ("label", "length", "lines"),
    [
        ("TD-MPC2 (5M)", 40, ["TD-MPC2 (5M)"]),
        ("a b+cd", 3, ["a", "b+", "cd"]),
        ("abcdef", 4, ["abcd", "ef"]),
    ],
)
def test_labels_break_after_spaces_and_plus_signs(
    label: str, length: int, lines: list[str]
) -> None:
    assert broken(label, length).split("\n") == lines


def test_a_long_list_of_settings_breaks_between_settings() -> None:
    lines = ["DreamerV3 (batch_length-32+batch_size-8+", "model_size-small+train_ratio-256.0)"]
    assert broken(LONG, 40).split("\n") == lines


def test_one_long_label_among_many_does_not_make_a_single_column() -> None:
    entries = handles([f"TD-MPC2 (quick+variant-{n:02}, smoke)" for n in range(11)] + [LONG] * 9)
    height, columns = fit_legend(entries, 5.5)
    assert columns == 2
    assert height == pytest.approx(19 * ROW)  # one label of one line, nine of two lines


def test_few_entries_share_a_row_and_no_entry_needs_no_space() -> None:
    assert fit_legend(handles(["TD-MPC2", "TD-MPC", "SAC", "DreamerV3"]), 5.5) == (ROW, 4)
    assert fit_legend([], 5.5) == (0.0, 1)


def test_columns_are_as_wide_as_their_own_labels_and_fit_the_page() -> None:
    entries = handles(["x"] * 10 + [LONG] + ["x"] * 9)
    with paper_style():
        page, _ = canvas(1, Layout(captions=False))
        finish_figure(page, entries, ())
        page.draw_without_rendering()
        (legend,) = page.legends
        box = legend.get_window_extent()
    assert len(legend.get_texts()) == 20
    assert 0 <= box.x0 < box.x1 <= page.bbox.width
    assert box.height < 0.45 * page.bbox.height
