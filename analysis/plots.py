"""Room of the figure kinds: one function each, from records to a drawing and its numbers.

Colours, labels and order come from the catalogue (`paper_figures/figures.toml`), the look
from `paper_figures/paper.mplstyle`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.aggregate import FLOOR_LINES, aggregate_curves, floors, scores, task_curves
from analysis.catalogue import Catalogue, FigureSpec, LineStyle
from analysis.layout import canvas, card_lines, finish_axes, finish_figure
from analysis.problems import Problem
from analysis.records import RUN_KEY, SERIES, Records
from analysis.run_directory import SCORES
from tdmpc2.envs.tasks import TASKS

Series = tuple[str, ...]

_MARKED_POINTS = 15
"""Curves of at most so many points show each with a marker."""


@dataclass(frozen=True)
class Drawing:
    """A drawn figure.

    Attributes:
        figure: None where the records hold nothing that could be drawn.
        numbers: what is drawn, one step a row.
        problems: what the aggregation could not use.
    """

    figure: Figure | None
    numbers: pd.DataFrame
    problems: tuple[Problem, ...]


def learning_curves(records: Records, spec: FigureSpec, catalogue: Catalogue) -> Drawing:
    """One panel per task: mean over seeds, its 95 % interval, every single seed.

    Args:
        records: already selected for this figure.
        spec: `floors` adds what the task scores without learning.
        catalogue: styles and bootstrap.
    """
    numbers, problems = task_curves(records, catalogue.bootstrap)
    if numbers.empty:
        return Drawing(None, numbers, problems)
    if spec.floors:
        numbers = numbers.merge(floors(records), left_on="task", right_index=True)
    points = scores(records).merge(records.runs[[*RUN_KEY, "state"]], on=RUN_KEY)
    styles = series_styles(numbers, catalogue)
    tasks = numbers[["domain", "task"]].drop_duplicates().sort_values(["domain", "task"])["task"]
    figure, axes = canvas(len(tasks))
    for ax, task in zip(axes, tasks, strict=True):
        curves = numbers[numbers["task"] == task]
        _draw_seeds(ax, points[points["task"] == task], styles)
        if spec.floors:
            _draw_floors(ax, curves.iloc[0], catalogue)
        _draw_means(ax, curves, styles)
        ax.set_title(TASKS[task].title if task in TASKS else task, loc="left")
    labels = {score.metric: score.label for score in SCORES.values()}
    metrics = numbers.groupby("task")["metric"].first()
    finish_axes(axes, [labels[metrics[task]] for task in tasks], int(numbers["step"].max()))
    lines = [name for name in FLOOR_LINES if spec.floors and numbers[name].notna().any()]
    handles = [
        _handle(style) for style in [*styles.values(), *(catalogue.floors[n] for n in lines)]
    ]
    if (points["state"] == "DIVERGED").any():
        handles.append(Line2D([], [], color="k", marker="x", ls="", ms=4, label="run diverged"))
    what = "Lines: mean over seeds; bands: its 95 % interval; thin lines: single seeds."
    finish_figure(figure, handles, card_lines(records, catalogue.bootstrap, what))
    return Drawing(figure, numbers, problems)


def aggregate_curve(records: Records, spec: FigureSpec, catalogue: Catalogue) -> Drawing:
    """One panel per domain: mean normalised score over its tasks with its 95 % interval.

    Args:
        records: already selected for this figure.
        spec: of the figure; nothing of it is needed beyond the selection.
        catalogue: styles and bootstrap.
    """
    numbers, problems = aggregate_curves(records, catalogue.bootstrap)
    if numbers.empty:
        return Drawing(None, numbers, problems)
    styles = series_styles(numbers, catalogue)
    domains = sorted(numbers["domain"].unique())
    figure, axes = canvas(len(domains))
    for ax, domain in zip(axes, domains, strict=True):
        curves = numbers[numbers["domain"] == domain]
        _draw_means(ax, curves, styles)
        count = curves["num_tasks"].iloc[0]
        ax.set_title(f"{domain} ({count} task{'s' if count > 1 else ''})", loc="left")
    label = "mean normalised score"
    finish_axes(axes, [label] * len(domains), int(numbers["step"].max()))
    what = (
        "Lines: mean over tasks and seeds of return / 1000 or the success rate; bands: its 95 % "
        "interval."
    )
    finish_figure(
        figure,
        [_handle(style) for style in styles.values()],
        card_lines(records, catalogue.bootstrap, what),
    )
    return Drawing(figure, numbers, problems)


PLOTS: dict[str, Callable[[Records, FigureSpec, Catalogue], Drawing]] = {
    "learning_curves": learning_curves,
    "aggregate_curve": aggregate_curve,
}
"""The functions a figure of the catalogue may name."""


def series_styles(numbers: pd.DataFrame, catalogue: Catalogue) -> dict[Series, LineStyle]:
    """Style of every series, in the order of the legend.

    The first series of a method has the method's colour; its other variants, and methods
    the catalogue does not know, take the reserve colours, dashed once those are used up.

    Args:
        numbers: has the columns `records.SERIES`.
        catalogue: methods and reserve colours.
    """
    found = [tuple(row) for row in numbers[SERIES].drop_duplicates().to_numpy()]
    known = list(catalogue.methods)

    def place(series: Series) -> tuple[object, ...]:
        method, variant, size, dataset = series
        rank = known.index(method) if method in known else len(known)
        return (rank, method, variant != "default", variant, len(size), size, dataset)

    styles: dict[Series, LineStyle] = {}
    seen: set[str] = set()
    spare = 0
    for series in sorted(found, key=place):
        method = series[0]
        sizes = {other[2] for other in found if other[0] == method}
        label = _series_label(series, catalogue, with_size=len(sizes) > 1)
        if method in known and method not in seen:
            styles[series] = LineStyle(label, catalogue.methods[method].color)
        else:
            color = catalogue.reserve[spare % len(catalogue.reserve)]
            dashes = (3.0, 1.0) if spare >= len(catalogue.reserve) else ()
            styles[series] = LineStyle(label, color, dashes)
            spare += 1
        seen.add(method)
    return styles


def _series_label(series: Series, catalogue: Catalogue, *, with_size: bool) -> str:
    """Method, and in brackets what sets the series apart from the method's default."""
    method, variant, size, dataset = series
    name = catalogue.methods[method].label if method in catalogue.methods else method
    base, _, settings = variant.partition("[")
    parts = [base if base != "default" else "", settings.removesuffix("]"), dataset]
    if with_size:
        parts.append(f"{size}M" if size.isdigit() else size)
    inside = ", ".join(part for part in parts if part)
    return "\n".join(textwrap.wrap(f"{name} ({inside})" if inside else name, width=60))


def _draw_means(ax: Axes, curves: pd.DataFrame, styles: dict[Series, LineStyle]) -> None:
    """Mean lines with their bands, the first series on top."""
    marker = "o" if curves["step"].nunique() <= _MARKED_POINTS else ""
    for rank, (series, style) in enumerate(styles.items()):
        curve = curves[(curves[SERIES] == list(series)).all(axis=1)].dropna(subset="mean")
        steps, color = curve["step"], style.color
        ax.fill_between(steps, curve["low"], curve["high"], color=color, alpha=0.18, lw=0)
        above = 4 - rank / len(styles)
        (line,) = ax.plot(steps, curve["mean"], color=color, marker=marker, ms=2.5, zorder=above)
        _dash(line, style)


def _draw_seeds(ax: Axes, points: pd.DataFrame, styles: dict[Series, LineStyle]) -> None:
    """Every seed as a thin line; a cross where a run diverged."""
    for key, run in points.groupby(RUN_KEY):
        color = styles[tuple(str(part) for part in key[: len(SERIES)])].color
        run = run.sort_values("step")
        ax.plot(run["step"], run["value"], color=color, lw=0.6, alpha=0.45, zorder=2.5)
        if run["state"].iloc[0] == "DIVERGED":
            last = run.iloc[-1]
            ax.plot(last["step"], last["value"], color=color, marker="x", ms=4, zorder=5)


def _draw_floors(ax: Axes, row: pd.Series, catalogue: Catalogue) -> None:
    """Level lines at what the task scores without learning."""
    for name in FLOOR_LINES:
        if pd.notna(row[name]):
            style = catalogue.floors[name]
            _dash(ax.axhline(row[name], color=style.color, lw=0.9, zorder=2), style)


def _dash(line: Line2D, style: LineStyle) -> None:
    """Dashes of the style, if any."""
    if style.dashes:
        line.set_linestyle((0, style.dashes))


def _handle(style: LineStyle) -> Line2D:
    """Legend entry of a style."""
    line = Line2D([], [], color=style.color, lw=1.5, label=style.label)
    _dash(line, style)
    return line
