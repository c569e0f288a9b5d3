"""Room of what every figure kind shares: what it is given, what it gives, and its styles."""

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
from analysis.records.load import RUNS_SOURCE, SERIES, Records
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import Rule, ScoreCurves
from analysis.stats.selection import Group, Series


@dataclass(frozen=True)
class Shown:
    """What a figure is drawn from.

    Attributes:
        spec: of the figure.
        records: those it selects.
        curves: of them.
        rule: what counts where a step was not recorded.
        catalog: styles and bootstrap.
        embeddings: run directories or checkpoints of multi-task agents, for what is drawn from
            their task embeddings.
    """

    spec: FigureSpec
    records: Records
    curves: ScoreCurves
    rule: Rule
    catalog: Catalog
    embeddings: tuple[Path, ...] = ()

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are drawn."""
        return self.catalog.bootstrap

    def groups(self) -> tuple[Group, ...]:
        """The groups the figure names, or else one for each domain of the records."""
        if self.spec.groups:
            return self.spec.groups
        by_domain: dict[str, set[str]] = {}
        for run in self.curves.runs.itertuples():
            by_domain.setdefault(str(run.domain), set()).add(str(run.task))
        named = self.catalog.groups
        return tuple(
            Group(name, named[name].label if name in named else name, tuple(sorted(tasks)))
            for name, tasks in sorted(by_domain.items())
        )


@dataclass(frozen=True)
class Drawing:
    """A drawn figure.

    Attributes:
        pages: none where the records hold nothing that could be drawn.
        numbers: what is drawn, one value or step a row.
        table: the same in short, as text, for a paper.
        problems: what the aggregation could not use.
    """

    pages: Sequence[Figure]
    numbers: pd.DataFrame
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: tuple[Problem, ...] = ()


def series_styles(numbers: pd.DataFrame, catalog: Catalog) -> dict[Series, LineStyle]:
    """Style of every series, in the order of the legend.

    The first series of a method has the method's color; its other variants, and methods the
    catalog does not know, take the reserve colors, dashed once those are used up. Beside run
    directories, curves from elsewhere have the dashes of their source, and the color of the
    run directories of the same method and variant, if there are.

    Args:
        numbers: has the columns `records.SERIES`.
        catalog: methods, sources and reserve colors.
    """
    found = [tuple(map(str, row)) for row in numbers[SERIES].drop_duplicates().to_numpy()]
    known = list(catalog.methods)

    def place(series: Series) -> tuple[object, ...]:
        source, method, variant, size, dataset = series
        rank = known.index(method) if method in known else len(known)
        plain = (variant != "default", variant, len(size), size, dataset)
        return (source != RUNS_SOURCE, source, rank, method, *plain)

    styles: dict[Series, LineStyle] = {}
    colors: dict[tuple[str, str], str] = {}
    taken = 0
    for series in sorted(found, key=place):
        source, method, variant, *_ = series
        label = _series_label(series, found, catalog)
        mixed = len({other[0] for other in found}) > 1 and source in catalog.sources
        dashes = catalog.sources[source].dashes if mixed else ()
        elsewhere = source != RUNS_SOURCE
        plain = method in known and all(other != method for other, _ in colors)
        if elsewhere and (method, variant) in colors:
            color = colors[method, variant]
        elif plain or (elsewhere and method in known and variant == "default"):
            color = catalog.methods[method].color
        else:
            color = catalog.reserve[taken % len(catalog.reserve)]
            taken += 1
            if taken > len(catalog.reserve) and not dashes:
                dashes = (3.0, 1.0)
        styles[series] = LineStyle(label, color, dashes)
        colors.setdefault((method, variant), color)
    return styles


def handle(style: LineStyle) -> Line2D:
    """Legend entry of a style."""
    line = Line2D([], [], color=style.color, lw=1.5, label=style.label)
    dash(line, style)
    return line


def dash(line: Line2D, style: LineStyle) -> None:
    """Gives a line the dashes of the style, if any."""
    if style.dashes:
        line.set_linestyle((0, style.dashes))


def band(ax: Axes, steps: pd.Series, numbers: pd.DataFrame, style: LineStyle, **line: Any) -> None:
    """A line with its interval.

    Args:
        ax: to draw on.
        steps: of the horizontal axis.
        numbers: columns `mean`, `low`, `high`.
        style: of the line.
        **line: further properties of it.
    """
    low, high, mean = (numbers[name] for name in ("low", "high", "mean"))
    ax.fill_between(steps, low, high, color=style.color, alpha=0.18, lw=0)
    (drawn,) = ax.plot(steps, mean, color=style.color, **line)
    dash(drawn, style)


def bar(ax: Axes, place: int, style: LineStyle, value: float, low: float, high: float) -> None:
    """A bar with its height written on it, and whiskers where there is an interval (not NaN)."""
    (drawn,) = ax.bar(place, value, 0.82, color=style.color, edgecolor="white", lw=0.3)
    if style.dashes:
        drawn.set(hatch="////", alpha=0.55)
    top = value
    if not np.isnan(low):
        ends = np.maximum([[value - low], [high - value]], 0)  # against rounding
        ax.errorbar(place, value, ends, color="#222222", lw=0.8, capsize=1.5, capthick=0.8)
        top = high
    text, up = f"{value:.0f}", (0, 1.5)
    ax.annotate(text, (place, top), up, textcoords="offset points", ha="center", fontsize=6)


def of_series(table: pd.DataFrame, series: Series) -> pd.DataFrame:
    """The rows of a table that belong to one series."""
    return table[(table[SERIES] == list(series)).all(axis=1)]


def short_table(
    numbers: pd.DataFrame, rows: Sequence[str], styles: dict[Series, LineStyle], scale: float
) -> pd.DataFrame:
    """One row per `rows`, one column per series, `mean [low, high]` in each cell.

    Args:
        numbers: with the columns `SERIES`, `rows`, and `value` or `mean`, `low`, `high`.
        rows: columns of `numbers` that name a row.
        styles: of the series, whose labels head the columns.
        scale: factor on the numbers.
    """
    value = "value" if "value" in numbers else "mean"
    table = numbers.drop_duplicates(list(rows))[list(rows)].reset_index(drop=True)
    for series, style in styles.items():
        own = of_series(numbers, series).set_index(list(rows))[[value, "low", "high"]] * scale
        texts = own.apply(_cell, axis=1) if len(own) else pd.Series(dtype=object)
        label = style.label.replace("\n", " ")
        table = table.join(texts.rename(label), on=list(rows))
    return table.fillna("")


def _cell(row: pd.Series) -> str:
    """`87.8 [87.3, 88.4]`, or the value alone where there is no interval."""
    value, low, high = row
    if pd.isna(value):
        return ""
    return f"{value:.1f}" if pd.isna(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _series_label(series: Series, found: Sequence[Series], catalog: Catalog) -> str:
    """Method, and in brackets what sets the series apart from the method's default."""
    source, method, variant, size, dataset = series
    name = catalog.methods[method].label if method in catalog.methods else method
    base, _, settings = variant.partition("[")
    parts = [base if base != "default" else "", settings.removesuffix("]"), dataset]
    if len({other[3] for other in found if other[:2] == (source, method)}) > 1:
        parts.append(f"{size}M" if size.isdigit() else size)
    if len({other[0] for other in found}) > 1 and source != RUNS_SOURCE:
        parts.append(catalog.sources[source].label if source in catalog.sources else source)
    inside = ", ".join(part for part in parts if part)
    return "\n".join(textwrap.wrap(f"{name} ({inside})" if inside else name, width=60))
