"""Page layout: a grid of panels, axis labels, a legend above and a caption below.

Lengths are in inches, font sizes in points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from math import ceil

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.styles import Shown, series_styles
from analysis.records.load import AGENTS, SERIES, one_per_run
from analysis.records.run_reader import short_commits
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.aggregate import RLIABLE_VERSION
from analysis.stats.coverage import coverage_note, coverages, studies_of
from analysis.stats.ragged_curves import paper_budget
from analysis.stats.selection import Group
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.tasks import TASKS

PANEL = (1.85, 1.45)
"""Width and height of a panel in a grid of several rows."""
SINGLE_ROW = (2.3, 2.2)
"""Width and height of a panel if all panels are in one row."""
MAX_COLUMNS = 5
MIN_WIDTH = 5.2
CARD_SIZE = 5.8
LEGEND_SIZE = 7.0
_CHAR = 0.53
"""Mean width of a character of the sans-serif font, in units of the font size."""
_LONGEST_NAME = 28
_TICKS = (1, 2, 2.5, 5, 10)


def paper_style() -> AbstractContextManager[None]:
    """Return a context manager that applies the style of all figures."""
    return matplotlib.style.context(project_root() / "paper_figures" / "paper.mplstyle")


def columns_of(num_panels: int) -> int:
    """Return the number of panels per row."""
    if num_panels <= 4:
        return num_panels
    return {6: 3, 7: 4, 8: 4}.get(num_panels, MAX_COLUMNS)


def canvas(
    num_panels: int, *, panel: tuple[float, float] | None = None, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels; `finish_figure` adds space for legend and caption.

    Args:
        num_panels: number of panels.
        panel: width and height of a panel; None for the default.
        columns: panels per row; None for the default.
    """
    columns = columns or columns_of(num_panels)
    rows = ceil(num_panels / columns)
    width, height = panel or (SINGLE_ROW if rows == 1 else PANEL)
    figure = Figure(figsize=(max(MIN_WIDTH, columns * width), rows * height))
    grid = figure.add_gridspec(rows, columns)
    return figure, [figure.add_subplot(grid[divmod(i, columns)]) for i in range(num_panels)]


def finish_axes(
    axes: Sequence[Axes],
    labels: Sequence[str],
    last_step: int,
    columns: int | None = None,
    *,
    unit: str = "environment steps",
) -> None:
    """Set axis labels with units, and the same value range for panels of the same label.

    Args:
        axes: panels from `canvas`, already drawn on.
        labels: label of the value axis of each panel.
        last_step: largest step drawn, which selects thousands or millions as unit.
        columns: panels per row, if it was passed to `canvas`.
        unit: name of the steps.
    """
    columns = columns or columns_of(len(axes))
    for index, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        peers = [other for other, same in zip(axes, labels, strict=True) if same == label]
        top = max(peer.dataLim.y1 for peer in peers)
        bottom = min(0.0, *(peer.dataLim.y0 for peer in peers))
        if top - bottom < 1e-6:  # every value is zero
            top = bottom + 1
        margin = 0.04 * (top - bottom)
        ax.set_ylim(bottom - margin, top + margin)
        symbol = step_axis(ax, last_step)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
        if index % columns == 0 or labels[index - 1] != label:
            ax.set_ylabel(label)
        if index + columns >= len(axes):
            ax.set_xlabel(f"{unit} ({symbol})")


def step_axis(ax: Axes, last_step: int) -> str:
    """Format the ticks in thousands or millions of steps, and return the unit, "k" or "M"."""
    unit, symbol = (1_000_000, "M") if last_step >= 1_000_000 else (1000, "k")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    return symbol


def finish_figure(figure: Figure, handles: Sequence[Artist], card: Sequence[str]) -> None:
    """Add the legend above and the caption below the panels, and set the figure's height.

    Args:
        figure: figure from `canvas`.
        handles: labeled artists of the legend; without any, there is no legend.
        card: paragraphs of the caption, wrapped to the figure's width.
    """
    width = figure.get_figwidth()
    legend_height, columns = _legend_size(handles, width)
    line_length = int(width * 72 / CARD_SIZE / _CHAR)
    text = [row for line in card for row in textwrap.wrap(line, line_length)]
    card_height = len(text) * 1.25 * CARD_SIZE / 72 + 0.08
    height = figure.get_figheight() + legend_height + card_height
    figure.set_figheight(height)
    share = card_height / height
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    if handles:
        place = "outside upper center"
        figure.legend(handles=handles, loc=place, ncols=columns, fontsize=LEGEND_SIZE)
    figure.text(
        0.05 / width,
        0.04 / height,
        "\n".join(text),
        fontsize=CARD_SIZE,
        linespacing=1.25,
        color="#444444",
        va="bottom",
    )


def card_lines(shown: Shown, what: str, *, scored: bool = True) -> list[str]:
    """Return the caption: runs, provenance, method of aggregation and its limits.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and bands.
        scored: whether scores and their intervals are shown.
    """
    runs = shown.curves.runs
    num_tasks = runs["task"].nunique()
    facts = [
        f"{len(runs):,} run{'s' if len(runs) > 1 else ''} ({_listed_states(runs['state'])})",
        f"{num_tasks} task{'s' if num_tasks > 1 else ''}",
        f"seeds {_listed(sorted(runs['seed']))}",
    ]
    ours = runs[runs["source"] == RUNS_SOURCE]
    if len(ours):
        commits = _listed(short_commits(ours["commit"]))
        facts += [
            f"model size {_listed(size or 'none' for size in ours['model_size'])}",
            f"commit {commits or 'not recorded'}",
            *([simulators] if (simulators := _listed(filter(None, ours["simulators"]))) else []),
        ]
    facts += [
        f"{'all' if count == len(runs) else f'{count:,} of them'} "
        f"{_source_label(str(source), shown)}"
        for source, count in runs["source"].value_counts().items()
        if source != RUNS_SOURCE
    ]
    if not scored:
        return [*([" · ".join(facts)] if len(runs) else []), *_marks(ours), what]
    single = bool((runs.groupby([*SERIES, "task"])["seed"].count() == 1).any())
    return [" · ".join(facts), *_marks(ours), _method(shown, what, single), _coverage(shown)]


def _coverage(shown: Shown) -> str:
    """Return the measured coverage of the intervals of a figure."""
    groups = shown.groups()
    if shown.spec.plot == "learning_curves":  # its intervals are those of single tasks
        names = dict.fromkeys(name for group in groups for name in group.tasks)
        groups = tuple(Group(name, TASKS[name].title, (name,)) for name in names)
    statistics, names_of = shown.spec.statistics, series_styles(shown.curves.runs, shown.catalog)
    found = list(coverages(shown.curves, groups, statistics, shown.bootstrap))
    return coverage_note(found, {key: style.label for key, style in names_of.items()})


def multitask_card_lines(shown: Shown, what: str, runs: pd.DataFrame | None = None) -> list[str]:
    """Return the caption of a figure of multi-task agents.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and marks.
        runs: rows of `Records.runs` on the page; None for all.
    """
    runs = one_per_run(shown.records.runs if runs is None else runs)
    if runs.empty:
        return [what]
    counts = zip(runs["task_set"], map(len, runs["tasks"]), strict=True)
    sets = _listed(f"{short_name(str(name))} ({count} tasks)" for name, count in counts)
    simulators = _listed(filter(None, runs["simulators"]))
    sizes = [str(size) or "none" for size in runs["model_size"]]
    sizes.sort(key=lambda size: (len(size), size))
    facts = [
        f"{len(runs):,} run{'s' if len(runs) > 1 else ''} ({_listed_states(runs['state'])})",
        sets,
        f"seeds {_listed(sorted(runs['seed']))}",
        f"model size {_listed(sizes)}",
        f"budget {_listed(f'{budget:,}' for budget in sorted(runs['budget']))} updates",
        f"commit {_listed(short_commits(runs['commit'])) or 'not recorded'}",
        *([simulators] if simulators else []),
    ]
    single = bool((runs.groupby(AGENTS)["seed"].count() == 1).any())
    return [" · ".join(facts), _method(shown, what, single), coverage_note([], {})]


def _method(shown: Shown, what: str, single: bool) -> str:
    """Return what is drawn, and the rule and definitions behind it.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and bands.
        single: whether a score is based on a single seed.
    """
    method = (
        f"{what} {shown.rule.what} Statistics as defined by rliable {RLIABLE_VERSION}; coverage "
        f"simulated in {studies_of(shown.bootstrap).reps:,} studies."
    )
    return f"{method} A single seed has no interval." if single else method


def short_name(name: str) -> str:
    """Return the name of a task set, truncated to fit above a panel."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def command_card(title: str, command: str) -> Figure:
    """Return a page that replaces a figure without runs: its title and the required command."""
    lines = textwrap.wrap(command, 84, break_on_hyphens=False, subsequent_indent="    ")
    figure = Figure(figsize=(MIN_WIDTH, 0.75 + 0.15 * len(lines)))
    heading = f"Not drawn (no matching runs): {title}"
    figure.text(0.02, 0.8, heading, fontsize=LEGEND_SIZE, va="center")
    figure.text(0.02, 0.55, "\n".join(lines), fontsize=CARD_SIZE, family="monospace", va="top")
    return figure


def _marks(ours: pd.DataFrame) -> list[str]:
    """Return a line on runs that differ from the paper's setting, if there are any."""
    marks = []
    standin = ours["variant"].str.contains("assets=").sum()
    if standin:
        marks.append(f"{standin} runs with assets other than the official ones")
    other = ours["variant"].str.contains("physics=").sum()
    if other:
        marks.append(f"{other} runs with physics other than the paper's")
    full = [paper_budget(run.task, run.obs) for run in ours.itertuples()]
    reduced = ours[(ours["budget"] < full) & np.isfinite(full)]
    if len(reduced):
        budgets = _listed(f"{budget:,}" for budget in sorted(reduced["budget"]))
        marks.append(f"{len(reduced)} runs with a reduced budget ({budgets} env steps)")
    return [f"Not the paper's setting: {'; '.join(marks)}."] if marks else []


def _legend_size(handles: Sequence[Artist], width: float) -> tuple[float, int]:
    """Return the height of a legend, and its number of columns."""
    if not handles:
        return 0.0, 1
    labels = [str(handle.get_label()).split("\n") for handle in handles]
    longest = max(len(line) for label in labels for line in label)
    fitting_columns = max(1, int(width * 72 / (longest * _CHAR * LEGEND_SIZE + 36)))
    rows = ceil(len(handles) / fitting_columns)
    columns = ceil(len(handles) / rows)
    rows += max(len(label) for label in labels) - 1
    return rows * 1.6 * LEGEND_SIZE / 72, columns


def _source_label(source: str, shown: Shown) -> str:
    """Return the label of curves that do not come from run directories."""
    styles = shown.catalog.sources
    return styles[source].label if source in styles else f"from {source}"


def _listed_states(states: pd.Series) -> str:
    """Return the number of runs in each state as text."""
    return ", ".join(f"{n:,} {state}" for state, n in states.value_counts().items())


def _listed(values: Iterable[object]) -> str:
    """Return the distinct values in order of appearance, shortened to eight."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(distinct[:8]) + (f" and {len(distinct) - 8} more" if len(distinct) > 8 else "")
