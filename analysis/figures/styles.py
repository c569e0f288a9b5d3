"""Inputs, outputs and line styles that all plot functions share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.figure_specs import Catalog, FigureSpec, LineStyle
from analysis.records.load import SERIES, Records
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import Group, Series
from tdmpc2.envs.tasks import TASKS


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
    """

    spec: FigureSpec
    records: Records
    curves: ScoreCurves
    rule: Rule
    catalog: Catalog
    embeddings: tuple[Path, ...] = ()

    @property
    def bootstrap(self) -> Bootstrap:
        """Bootstrap settings of the catalog."""
        return self.catalog.bootstrap

    def groups(self) -> tuple[Group, ...]:
        """Return the groups of the figure, or one group per domain of the records."""
        if self.spec.groups:
            return self.spec.groups
        by_domain: dict[str, set[str]] = {}
        for run in self.curves.runs[self.curves.runs["task"].isin(list(TASKS))].itertuples():
            by_domain.setdefault(str(run.domain), set()).add(str(run.task))
        named = self.catalog.groups
        return tuple(
            Group(name, named[name].label if name in named else name, tuple(sorted(tasks)))
            for name, tasks in sorted(by_domain.items())
        )


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

    The first series of a method has the method's color. Other variants, and methods without a
    style, get the reserve colors, dashed after all of them are used. If there are several sources,
    curves that do not come from run directories have the dashes of their source, and the color of
    the run directories of the same method and variant, if there are any.

    Args:
        numbers: table with the columns `load.SERIES`.
        catalog: styles of methods and sources, and reserve colors.
    """
    all_series = [tuple(map(str, row)) for row in numbers[SERIES].drop_duplicates().to_numpy()]
    known = list(catalog.methods)

    def legend_order(series: Series) -> tuple[object, ...]:
        source, method, variant, size, dataset = series
        rank = known.index(method) if method in known else len(known)
        plain = (variant != "default", variant, len(size), size, dataset)
        return (source != RUNS_SOURCE, source, rank, method, *plain)

    styles: dict[Series, LineStyle] = {}
    colors: dict[tuple[str, str], str] = {}
    num_reserve_used = 0
    for series in sorted(all_series, key=legend_order):
        source, method, variant, *_ = series
        label = _series_label(series, all_series, catalog)
        mixed = len({other[0] for other in all_series}) > 1 and source in catalog.sources
        dashes = catalog.sources[source].dashes if mixed else ()
        elsewhere = source != RUNS_SOURCE
        plain = method in known and all(other != method for other, _ in colors)
        if elsewhere and (method, variant) in colors:
            color = colors[method, variant]
        elif plain or (elsewhere and method in known and variant == "default"):
            color = catalog.methods[method].color
        else:
            color = catalog.reserve[num_reserve_used % len(catalog.reserve)]
            num_reserve_used += 1
            if num_reserve_used > len(catalog.reserve) and not dashes:
                dashes = (3.0, 1.0)
        styles[series] = LineStyle(label, color, dashes)
        colors.setdefault((method, variant), color)
    return styles


def handle(style: LineStyle) -> Line2D:
    """Return the legend entry of a style."""
    line = Line2D([], [], color=style.color, lw=1.5, label=style.label)
    dash(line, style)
    return line


def dash(line: Line2D, style: LineStyle) -> None:
    """Set the dashes of a line, if the style has any."""
    if style.dashes:
        line.set_linestyle((0, style.dashes))


def band(ax: Axes, steps: pd.Series, numbers: pd.DataFrame, style: LineStyle, **line: Any) -> None:
    """Draw a line with its interval as a band.

    Args:
        ax: axes to draw on.
        steps: horizontal coordinates.
        numbers: columns `mean`, `low`, `high`.
        style: style of the line.
        **line: further properties of the line.
    """
    low, high, mean = (numbers[name] for name in ("low", "high", "mean"))
    ax.fill_between(steps, low, high, color=style.color, alpha=0.18, lw=0)
    (drawn,) = ax.plot(steps, mean, color=style.color, **line)
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
    (drawn,) = ax.bar(place, value, 0.82, color=style.color, edgecolor="white", lw=0.3)
    if style.dashes:
        drawn.set(hatch="////", alpha=0.55)
    top = value
    if not np.isnan(low):
        ends = np.maximum([[value - low], [high - value]], 0)  # rounding can make them negative
        ax.errorbar(place, value, ends, color="#222222", lw=0.8, capsize=1.5, capthick=0.8)
        top = high
    text, up = f"{value:.0f}", (0, 1.5)
    ax.annotate(text, (place, top), up, textcoords="offset points", ha="center", fontsize=6)


def of_series(table: pd.DataFrame, series: Series) -> pd.DataFrame:
    """Return the rows of a table that belong to one series."""
    return table[(table[SERIES] == list(series)).all(axis=1)]


def short_table(
    numbers: pd.DataFrame, rows: Sequence[str], styles: dict[Series, LineStyle], scale: float
) -> pd.DataFrame:
    """Return a table of text with a column per series and cells `mean [low, high]`.

    Args:
        numbers: table with the columns `SERIES`, `rows`, and `value` or `mean`, `low`, `high`.
        rows: columns of `numbers` that identify a row.
        styles: styles of the series, whose labels become column names.
        scale: factor on the numbers.
    """
    value = "value" if "value" in numbers else "mean"
    table = numbers.drop_duplicates(list(rows))[list(rows)].reset_index(drop=True)
    for series, style in styles.items():
        scaled = of_series(numbers, series).set_index(list(rows))[[value, "low", "high"]] * scale
        texts = scaled.apply(_cell, axis=1) if len(scaled) else pd.Series(dtype=object)
        label = style.label.replace("\n", " ")
        table = table.join(texts.rename(label), on=list(rows))
    return table.fillna("")


def _cell(row: pd.Series) -> str:
    """Return `87.8 [87.3, 88.4]`, or the value alone if there is no interval."""
    value, low, high = row
    if pd.isna(value):
        return ""
    return f"{value:.1f}" if pd.isna(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _series_label(series: Series, all_series: Sequence[Series], catalog: Catalog) -> str:
    """Return the method, followed by what distinguishes the series in parentheses."""
    source, method, variant, size, dataset = series
    name = catalog.methods[method].label if method in catalog.methods else method
    base, _, settings = variant.partition("[")
    details = [base if base != "default" else "", settings.removesuffix("]"), dataset]
    if len({other[3] for other in all_series if other[:2] == (source, method)}) > 1:
        details.append(f"{size}M" if size.isdigit() else size)
    if len({other[0] for other in all_series}) > 1 and source != RUNS_SOURCE:
        details.append(catalog.sources[source].label if source in catalog.sources else source)
    joined = ", ".join(detail for detail in details if detail)
    return "\n".join(textwrap.wrap(f"{name} ({joined})" if joined else name, width=60))
