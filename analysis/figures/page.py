"""Page layout: a grid of panels, axis labels, a legend above and a caption below.

Lengths are in inches, font sizes in points.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import ceil

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.catalog_file import shipped
from analysis.figures.legends import CHAR, LEGEND_SIZE, fit_legend
from analysis.figures.styles import MARKED_POINTS, Layout

PANEL_WIDTH = 1.3
"""Least width of a panel, its axis labels included."""
SHORT, TALL = 1.0, 1.5
"""Heights of a panel in a grid of several rows, and alone in its row."""
PANEL_TITLE_SIZE = 7.5
CARD_SIZE = 6.5
_WIDE_CHAR = 0.58
"""Mean width of a character of the sans-serif font in titles, in font sizes."""
_LINE = 0.15
"""Height of the line of a label that all panels share."""
_MARGIN, _GAP = 0.45, 0.08
"""Space to the left of the panels, and between them."""
_MARKERS, _FEW_LINES = 6, 8
"""Markers of a line that spans the axis; with at most this many lines, short ones have more."""
_TICKS = (1, 2, 2.5, 5, 10)
_UNBROKEN = re.compile(r" (?=· |%|\d+\.\d+\.\d)")
"""Spaces of captions at which lines do not break: before separators, percent signs, versions."""


class Page(Figure):
    """A page: a figure that knows its layout and its caption.

    Args:
        layout: width of the page, and whether it shows the caption.
        columns: panels per row.
        height: height of the panels; `finish_figure` adds space for legend and caption.

    Attributes:
        labels: labels that all panels share, of the horizontal and of the vertical axis.
        caption: the caption in one line, shown or not.
    """

    def __init__(self, layout: Layout, columns: int, height: float) -> None:
        super().__init__(figsize=(layout.width, height))
        self.layout = layout
        self.columns = columns
        self.labels = ("", "")
        self.caption = ""


def paper_style() -> AbstractContextManager[None]:
    """Return a context manager that applies the style of all figures.

    It is seaborn's theme for papers, with the settings of `paper_figures/paper.mplstyle`.
    """
    own = mpl.rc_params_from_file(shipped("paper.mplstyle"), use_default_template=False)
    theme = {**sns.axes_style("whitegrid"), **sns.plotting_context("paper")}
    return mpl.rc_context({**theme, **own})


def panel_grid(num_panels: int, layout: Layout, least_width: float) -> tuple[int, int]:
    """Return the rows and columns of the panels of a page; see `canvas`.

    Args:
        num_panels: number of panels.
        layout: width of the page.
        least_width: least width of a panel.
    """
    most = max(1, int(layout.width / least_width + 1e-9))
    rows = ceil(num_panels / most)
    return rows, ceil(num_panels / rows)


def canvas(
    num_panels: int,
    layout: Layout,
    *,
    least_width: float = PANEL_WIDTH,
    height: float | None = None,
) -> tuple[Page, list[Axes]]:
    """Return a page and its panels, in rows of equal length as far as possible.

    Args:
        num_panels: number of panels.
        layout: width of the page.
        least_width: least width of a panel, which limits the number of panels per row.
        height: height of a panel; None for the default.
    """
    rows, columns = panel_grid(num_panels, layout, least_width)
    page = Page(layout, columns, rows * (height or (TALL if rows == 1 else SHORT)))
    grid = page.add_gridspec(rows, columns)
    return page, [page.add_subplot(grid[divmod(i, columns)]) for i in range(num_panels)]


def finish_axes(
    page: Page,
    labels: Sequence[str],
    last_step: int,
    *,
    unit: str = "environment steps",
    ranges: Sequence[str] = (),
) -> None:
    """Set axis labels with units, and the value ranges that panels share.

    A label that all panels share is written once. Ticks that repeat those of the panel to the left
    or below have no numbers.

    Args:
        page: page from `canvas`, already drawn on.
        labels: label of the value axis of each panel.
        last_step: largest step drawn, which selects thousands or millions as unit; 0 for plain
            numbers.
        unit: name of the steps.
        ranges: a name per panel; panels of the same name have the same value range. Default: those
            of the same label.
    """
    axes, columns = page.axes, page.columns
    ranges = ranges or labels
    size, symbol = _unit_of(last_step)
    ends = [float(ax.dataLim.x1) for ax in axes]
    for index, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        peers = [peer for peer, name in zip(axes, ranges, strict=True) if name == ranges[index]]
        top = max(peer.dataLim.y1 for peer in peers)
        bottom = min(0.0, *(peer.dataLim.y0 for peer in peers))
        if top - bottom < 1e-6:  # every value is zero
            top = bottom + 1
        margin = 0.04 * (top - bottom)
        ax.set_ylim(bottom - margin, top + margin)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=_TICKS, min_n_ticks=3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / size:g}"))
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=_TICKS, min_n_ticks=3))
        first = index % columns == 0
        ax.tick_params(labelleft=first or ranges[index - 1] != ranges[index])
        if (first or labels[index - 1] != label) and len(set(labels)) > 1:
            ax.set_ylabel(label)
        ax.tick_params(labelbottom=ends[index + columns : index + columns + 1] != [ends[index]])
        _space_markers(ax)
    page.labels = (f"{unit}{symbol}", labels[0] if len(set(labels)) == 1 else "")


def _space_markers(ax: Axes) -> None:
    """Place the markers of lines at equal distances along the axis, at other ones for each line.

    Lines that end early would otherwise hide under their markers, and lines that coincide would
    hide each other's. A few lines of few points keep a marker at each of them.
    """
    lines = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    left, right = (float(end) for end in ax.dataLim.intervalx)
    apart = (right - left) / _MARKERS
    for place, line in enumerate(lines):
        steps = np.asarray(line.get_xdata(), float)
        if len(steps) < 2:
            continue
        few_points = (right - left) <= MARKED_POINTS * np.diff(steps).min()
        if few_points and len(lines) <= _FEW_LINES:
            continue
        bins = np.floor((steps - left) / apart + place / len(lines))
        first_of_bins = np.flatnonzero(np.diff(bins)) + 1
        line.set_markevery(first_of_bins.tolist() or [len(steps) - 1])


def _unit_of(last_step: int) -> tuple[int, str]:
    """Return the unit of the steps, and its symbol in parentheses; 1 and none for 0 steps."""
    if last_step == 0:
        return 1, ""
    return (1_000_000, " (M)") if last_step >= 1_000_000 else (1000, " (k)")


def set_title(page: Page, ax: Axes, title: str) -> None:
    """Set the title of a panel, at its left edge, in lines that fit above it.

    Args:
        page: page of the panel.
        ax: axes of the panel.
        title: text, whose lines are wrapped.
    """
    width = (page.layout.width - _MARGIN) / page.columns - _GAP
    fitting = int(width * 72 / PANEL_TITLE_SIZE / _WIDE_CHAR)
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, fitting)]
    ax.set_title("\n".join(lines), loc="left", fontsize=PANEL_TITLE_SIZE)


def finish_figure(page: Page, handles: Sequence[Artist], card: Sequence[str]) -> None:
    """Add the legend above and the caption below the panels, and set the figure's height.

    Args:
        page: page from `canvas`.
        handles: labeled artists of the legend; without any, there is no legend.
        card: paragraphs of the caption, wrapped to the page's width.
    """
    page.caption = " ".join(card)
    width = page.get_figwidth()
    legend_height, columns = fit_legend(handles, width)
    line_length = int(width * 72 / CARD_SIZE / CHAR) - 3  # lines of capitals and digits are wide
    shown = card if page.layout.captions else ()
    unbroken = [_UNBROKEN.sub("\u00a0", line) for line in shown]
    text = [
        row for line in unbroken for row in textwrap.wrap(line, line_length, break_on_hyphens=False)
    ]
    card_height = len(text) * 1.25 * CARD_SIZE / 72 + 0.08 if text else 0.0
    height = page.get_figheight() + legend_height + card_height + _LINE * bool(page.labels[0])
    page.set_figheight(height)
    across, up = page.labels
    bottom, left = (card_height + _LINE * bool(across)) / height, _LINE * bool(up) / width
    pads = {"w_pad": 0.03, "h_pad": 0.03, "wspace": 0, "hspace": 0.02}
    page.set_layout_engine("constrained", rect=(left, bottom, 1 - left, 1 - bottom), **pads)
    # Not supxlabel and supylabel, which the layout centers in the whole figure.
    page.text(0.5 + left / 2, bottom, across, ha="center", va="top")
    middle = (bottom + 1 - legend_height / height) / 2
    page.text(0.02 / width, middle, up, ha="left", va="center", rotation=90)
    if handles:
        place = "outside upper center"
        page.legend(handles=handles, loc=place, ncols=columns, fontsize=LEGEND_SIZE)
    if text:
        page.text(
            0.05 / width,
            0.04 / height,
            "\n".join(text),
            fontsize=CARD_SIZE,
            linespacing=1.25,
            color="#444444",
            va="bottom",
        )
