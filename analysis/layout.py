"""Room of the page: panels in a grid, axis labels, a legend above and a card below.

Lengths are in inches, font sizes in points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.aggregate import COVERAGE_NOTE, RLIABLE_VERSION, Bootstrap
from analysis.records import SERIES, Records

PANEL_WIDTH = 2.3
PANEL_HEIGHT = 1.75
SINGLE_ROW_HEIGHT = 2.2
MIN_WIDTH = 5.2
CARD_SIZE = 5.8
LEGEND_SIZE = 7.0
_CHAR = 0.53
"""Mean width of a character of the sans-serif font, in units of the font size."""
_TICKS = (1, 2, 2.5, 5, 10)


def columns_of(num_panels: int) -> int:
    """Panels in a row."""
    if num_panels <= 3:
        return num_panels
    return 4 if num_panels <= 16 else 6 if num_panels <= 48 else 8


def canvas(num_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure and its panels; `finish_figure` gives it its height."""
    columns = columns_of(num_panels)
    figure = Figure(figsize=(max(MIN_WIDTH, columns * PANEL_WIDTH), PANEL_HEIGHT))
    grid = figure.add_gridspec(ceil(num_panels / columns), columns)
    return figure, [figure.add_subplot(grid[divmod(i, columns)]) for i in range(num_panels)]


def finish_axes(axes: Sequence[Axes], labels: Sequence[str], last_step: int) -> None:
    """Axis labels with units, and one value range for all panels of the same label.

    Args:
        axes: of `canvas`, drawn on.
        labels: of the value axis, one a panel.
        last_step: largest env step drawn, which decides between thousands and millions.
    """
    columns = columns_of(len(axes))
    unit, symbol = (1_000_000, "M") if last_step >= 1_000_000 else (1000, "k")
    for index, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        peers = [other for other, same in zip(axes, labels, strict=True) if same == label]
        top = max(peer.dataLim.y1 for peer in peers)
        bottom = min(0.0, *(peer.dataLim.y0 for peer in peers))
        if top - bottom < 1e-6:  # every value is zero
            top = bottom + 1
        margin = 0.04 * (top - bottom)
        ax.set_ylim(bottom - margin, top + margin)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
        if index % columns == 0 or labels[index - 1] != label:
            ax.set_ylabel(label)
        if index + columns >= len(axes):
            ax.set_xlabel(f"environment steps ({symbol})")


def finish_figure(figure: Figure, handles: Sequence[Line2D], card: Sequence[str]) -> None:
    """Legend above and card below the panels, and the height that all of it needs.

    Args:
        figure: from `canvas`.
        handles: labelled lines for the legend.
        card: lines of text, wrapped to the figure's width.
    """
    width = figure.get_figwidth()
    labels = [str(handle.get_label()).split("\n") for handle in handles]
    longest = max(len(line) for label in labels for line in label)
    fitting = max(1, int(width * 72 / (longest * _CHAR * LEGEND_SIZE + 36)))
    rows = ceil(len(handles) / fitting)
    columns = ceil(len(handles) / rows)
    rows += max(len(label) for label in labels) - 1
    legend_height = rows * 1.6 * LEGEND_SIZE / 72
    in_line = int(width * 72 / CARD_SIZE / _CHAR)
    text = [row for line in card for row in textwrap.wrap(line, in_line)]
    card_height = len(text) * 1.25 * CARD_SIZE / 72 + 0.08
    panel_rows = ceil(len(figure.axes) / columns_of(len(figure.axes)))
    panels_height = panel_rows * PANEL_HEIGHT if panel_rows > 1 else SINGLE_ROW_HEIGHT
    height = panels_height + legend_height + card_height
    figure.set_figheight(height)
    share = card_height / height
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, fontsize=LEGEND_SIZE)
    figure.text(
        0.05 / width,
        0.04 / height,
        "\n".join(text),
        fontsize=CARD_SIZE,
        linespacing=1.25,
        color="#444444",
        va="bottom",
    )


def card_lines(records: Records, bootstrap: Bootstrap, what: str) -> list[str]:
    """What a reader must know of a figure to trust it, in a few lines.

    Args:
        records: what the figure shows.
        bootstrap: how its intervals were drawn.
        what: what lines and bands stand for.
    """
    runs = records.runs
    num_tasks = runs["task"].nunique()
    states = ", ".join(f"{n} {state}" for state, n in runs["state"].value_counts().items())
    commits = _listed(str(commit)[:10] for commit in runs["commit"] if commit)
    facts = [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} ({states})",
        f"{num_tasks} task{'s' if num_tasks > 1 else ''}",
        f"seeds {_listed(sorted(runs['seed']))}",
        f"model size {_listed(size or 'none' for size in runs['model_size'])}",
        f"commit {commits or 'not recorded'}",
    ]
    method = (
        f"{what} Steps that not every seed has reached are not averaged. Stratified percentile "
        f"bootstrap over seeds, {bootstrap.reps:,} resamples (rliable {RLIABLE_VERSION}, "
        f"generator seed {bootstrap.seed})."
    )
    if (runs.groupby([*SERIES, "task"])["seed"].count() == 1).any():
        method += " A single seed has no interval."
    return [" · ".join(facts), method, COVERAGE_NOTE]


def _listed(values: Iterable[object]) -> str:
    """Distinct values in order of appearance."""
    return ", ".join(dict.fromkeys(str(value) for value in values))
