"""Inputs, outputs and line styles that all plot functions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from analysis.figures.figure_specs import Catalog, FigureSpec, LineStyle
from analysis.records.load import SERIES, Records
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.estimate_texts import estimate_text
from analysis.stats.horizons import Group, own_environments
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import Series
from tdmpc2.common.system.texts import size_text
from tdmpc2.envs.tasks import TASKS

_MARKER_SIZE = 3.6
MARKED_POINTS = 15
"""Lines with at most this many points over the whole axis have a marker at each of them."""
_VALUE_SIZE = 7


@dataclass(frozen=True)
class Layout:
    """Layout of the pages.

    Attributes:
        width: width in inches; the default is the text column of the field's conferences.
        captions: whether the caption is shown below the panels.
    """

    width: float = 5.5
    captions: bool = True


@dataclass(frozen=True)
class Shown:
    """Inputs of a plot function.

    Attributes:
        spec: the figure.
        records: records selected by the figure.
        curves: their score curves.
        rule: treatment of missing and repeated evaluations.
        catalog: styles and bootstrap settings.
        embeddings: run directories or checkpoints of multi-task agents, for figures of task
            embeddings.
        frames: folder of rendered frames, for the gallery.
        layout: layout of the pages.
    """

    spec: FigureSpec
    records: Records
    curves: ScoreCurves
    rule: Rule
    catalog: Catalog
    embeddings: tuple[Path, ...] = ()
    frames: Path | None = None
    layout: Layout = field(default_factory=Layout)

    @property
    def bootstrap(self) -> Bootstrap:
        """Bootstrap settings of the catalog."""
        return self.catalog.bootstrap

    def groups(self) -> tuple[Group, ...]:
        """Return the groups of the figure, or one per domain of the records.

        The environments of users that have normalized scores are one of them.
        """
        if self.spec.groups:
            return self.spec.groups
        by_domain: dict[str, set[str]] = {}
        for run in self.curves.runs[self.curves.runs["task"].isin(list(TASKS))].itertuples():
            by_domain.setdefault(str(run.domain), set()).add(str(run.task))
        named = self.catalog.groups
        domains = tuple(
            Group(name, named[name].label if name in named else name, tuple(sorted(tasks)))
            for name, tasks in sorted(by_domain.items())
        )
        own = own_environments(self.curves)[0]
        return domains if own is None else (*domains, own)


@dataclass(frozen=True)
class Drawing:
    """Output of a plot function.

    Attributes:
        pages: pages of the figure, empty if the records contain nothing to draw.
        numbers: plotted numbers, one value or step per row.
        table: summary table as text, for a paper.
        problems: records that the aggregation could not use.
    """

    pages: Sequence[Figure]
    numbers: pd.DataFrame
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: tuple[Problem, ...] = ()


def series_styles(numbers: pd.DataFrame, catalog: Catalog) -> dict[Series, LineStyle]:
    """Return the style of every series, in the order of the legend.

    The first series of a method has the method's color, marker and hatches. Other variants, and
    methods without a style, get the reserve styles (`Catalog.spare`). If there are several sources,
    curves that do not come from run directories have the dashes of their source, and otherwise the
    style of the run directories of the same method and variant, if there are any.

    Args:
        numbers: table with the columns `load.SERIES`.
        catalog: styles of methods and sources, and reserve styles.
    """
    all_series = [tuple(map(str, row)) for row in numbers[SERIES].drop_duplicates().to_numpy()]
    known = list(catalog.methods)

    def legend_order(series: Series) -> tuple[object, ...]:
        source, method, variant, size, dataset = series
        rank = known.index(method) if method in known else len(known)
        plain = (variant != "default", variant, len(size), size, dataset)
        return (source != RUNS_SOURCE, source, rank, method, *plain)

    styles: dict[Series, LineStyle] = {}
    looks: dict[tuple[str, str], LineStyle] = {}
    num_reserve_used = 0
    for series in sorted(all_series, key=legend_order):
        source, method, variant, *_ = series
        mixed = len({other[0] for other in all_series}) > 1 and source in catalog.sources
        dashes = catalog.sources[source].dashes if mixed else ()
        elsewhere = source != RUNS_SOURCE
        plain = method in known and all(other != method for other, _ in looks)
        if elsewhere and (method, variant) in looks:
            look = looks[method, variant]
        elif plain or (elsewhere and method in known and variant == "default"):
            look = catalog.methods[method]
        else:
            look = catalog.spare(num_reserve_used)
            num_reserve_used += 1
        label = _series_label(series, all_series, catalog)
        styles[series] = replace(look, label=label, dashes=dashes or look.dashes)
        looks.setdefault((method, variant), look)
    return styles


def handle(style: LineStyle) -> Line2D:
    """Return the legend entry of a line."""
    line = Line2D([], [], color=style.color, lw=1.3, label=style.label, **marker_of(style))
    dash(line, style)
    return line


def bar_handle(style: LineStyle) -> Patch:
    """Return the legend entry of a bar."""
    return Patch(**bar_look(style), label=style.label)


def marker_of(style: LineStyle) -> dict[str, Any]:
    """Return the properties of a line that draw the style's marker."""
    return {"marker": style.marker, "ms": _MARKER_SIZE, "mec": "white", "mew": 0.4}


def bar_look(style: LineStyle) -> dict[str, Any]:
    """Return the properties of a bar: color and hatches; those of another source are lighter."""
    face = to_rgba(style.color, 0.45 if style.dashes else 1.0)
    return {"facecolor": face, "edgecolor": "white", "hatch": style.hatch or None, "lw": 0.3}


def dash(line: Line2D, style: LineStyle) -> None:
    """Set the dashes of a line, if the style has any."""
    if style.dashes:
        line.set_linestyle((0, style.dashes))


def band(ax: Axes, steps: pd.Series, numbers: pd.DataFrame, style: LineStyle, **line: Any) -> None:
    """Draw a line with its interval as a band, and with markers at some of its points.

    Args:
        ax: axes to draw on.
        steps: horizontal coordinates.
        numbers: columns `mean`, `low`, `high`.
        style: style of the line.
        **line: further properties of the line.
    """
    low, high, mean = (numbers[name] for name in ("low", "high", "mean"))
    ax.fill_between(steps, low, high, color=style.color, alpha=0.2, lw=0)
    every = None if len(mean) <= MARKED_POINTS else (len(mean) // 12, len(mean) // 5)
    look = {"color": style.color, **marker_of(style), "markevery": every, **line}
    (drawn,) = ax.plot(steps, mean, **look)
    dash(drawn, style)


def bar(ax: Axes, place: int, style: LineStyle, value: float, low: float, high: float) -> None:
    """Draw a bar with its value as text, and with whiskers if there is an interval.

    Args:
        ax: axes to draw on.
        place: horizontal position.
        style: style of the bar.
        value: height.
        low: lower end of the interval, NaN if there is none.
        high: upper end of the interval, NaN if there is none.
    """
    ax.bar(place, value, 0.82, **bar_look(style))
    top = value
    if not np.isnan(low):
        ends = np.maximum([[value - low], [high - value]], 0)  # rounding can make them negative
        whiskers(ax, [place], [value], ends, width=0.8, cap=1.5)
        top = high
    write_value(ax, place, top, value)


def whiskers(
    ax: Axes, places: ArrayLike, values: ArrayLike, ends: ArrayLike, *, width: float, cap: float
) -> None:
    """Draw intervals of bars, dark with a light outline, so that they show on bars of any color.

    Args:
        ax: axes to draw on.
        places: horizontal positions, `(num_bars,)`.
        values: heights of the bars, `(num_bars,)`.
        ends: distances to the lower and the upper ends, `(2, num_bars)`.
        width: width of the lines in points.
        cap: half the width of the caps in points.
    """
    look: dict[str, Any] = {"color": "#222222", "ls": "", "capsize": cap}
    look |= {"elinewidth": width, "capthick": width}
    _, caps, bars = ax.errorbar(places, values, ends, **look)
    for artist in (*caps, *bars):
        artist.set_path_effects([withStroke(linewidth=width + 0.9, foreground="white")])


def write_value(ax: Axes, place: float, top: float, value: float) -> None:
    """Write a value above a bar or its whisker.

    Args:
        ax: axes to draw on.
        place: horizontal position.
        top: upper end of the bar or whisker.
        value: the number.
    """
    up = (0, 1.5)
    look: dict[str, Any] = {"ha": "center", "fontsize": _VALUE_SIZE}
    ax.annotate(f"{value:.0f}", (place, top), up, textcoords="offset points", **look)


def of_series(table: pd.DataFrame, series: Series) -> pd.DataFrame:
    """Return the rows of a table that belong to one series."""
    return table[(table[SERIES] == list(series)).all(axis=1)]


def short_table(
    numbers: pd.DataFrame, rows: Sequence[str], styles: dict[Series, LineStyle], scale: float
) -> pd.DataFrame:
    """Return a table of text with a column per series and cells `mean [low, high]`.

    Args:
        numbers: table with the columns `SERIES`, `rows`, and `value` or `mean`, `low`, `high`; a
            column `note` is added to the cells.
        rows: columns of `numbers` that identify a row.
        styles: styles of the series, whose labels become column names.
        scale: factor on the numbers.
    """
    value = "value" if "value" in numbers else "mean"
    table = numbers.drop_duplicates(list(rows))[list(rows)].reset_index(drop=True)
    for series, style in styles.items():
        scaled = of_series(numbers, series).set_index(list(rows))[[value, "low", "high"]] * scale
        texts = scaled.apply(_cell, axis=1) if len(scaled) else pd.Series(dtype=object)
        if "note" in numbers:
            texts += of_series(numbers, series).set_index(list(rows))["note"]
        table = table.join(texts.rename(style.label), on=list(rows))
    return table.fillna("")


def _cell(row: pd.Series) -> str:
    """Return `87.8 [87.3, 88.4]`, or the value alone if there is no interval."""
    return estimate_text(*row)


def _series_label(series: Series, all_series: Sequence[Series], catalog: Catalog) -> str:
    """Return the method, followed by what distinguishes the series in parentheses."""
    source, method, variant, size, dataset = series
    name = catalog.methods[method].label if method in catalog.methods else method
    if any(other[:2] == (source, name) for other in all_series):
        name = method  # a method of the same source is called like the label
    base, _, settings = variant.partition("[")
    details = [base if base != "default" else "", settings.removesuffix("]"), dataset]
    if len({other[3] for other in all_series if other[:2] == (source, method)}) > 1:
        details.append(size_text(size))
    if len({other[0] for other in all_series}) > 1 and source != RUNS_SOURCE:
        details.append(catalog.sources[source].label if source in catalog.sources else source)
    joined = ", ".join(detail for detail in details if detail)
    return f"{name} ({joined})" if joined else name
