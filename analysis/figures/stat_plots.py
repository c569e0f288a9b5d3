"""Room of the statistics over tasks: bars, interval plots, performance profiles, improvement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from analysis.figures.figure_specs import LineStyle, quotes_of
from analysis.figures.line_plots import STATISTIC_LABELS
from analysis.figures.page import canvas, card_lines, finish_figure
from analysis.figures.styles import (
    Drawing,
    Shown,
    band,
    bar,
    handle,
    of_series,
    series_styles,
    short_table,
)
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.aggregate import group_scores, improvements, profiles
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import Rule, ScoreCurves
from analysis.stats.selection import Group, Series

_BAR_PANEL = (1.3, 1.9)
QUOTED_COLORS = ("#8C8C8C", "#BFBFBF")
"""Greys of quoted numbers."""
_LEAST_BARS = 4
"""With fewer bars in a panel, they keep the width that so many have."""
_ROW = 0.2
"""Height of one line of an interval plot, in inches."""


def group_bars(shown: Shown) -> Drawing:
    """One panel per group of tasks, one bar per series: a statistic at the group's horizon."""
    statistic = shown.spec.statistics[0]
    numbers, problems = _scores(shown, (statistic,))
    quoted = quotes_of(shown.spec, ("group", "label", "score"))
    if numbers.empty and not quoted:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    known = {*numbers["group"], *(one["group"] for one in quoted)}
    groups = [group for group in shown.groups() if group.name in known]
    figure, axes = canvas(len(groups), panel=_BAR_PANEL, columns=min(len(groups), 6))
    for ax, group in zip(axes, groups, strict=True):
        own = [(one["label"], one["score"]) for one in quoted if one["group"] == group.name]
        bars(ax, numbers[numbers["group"] == group.name], styles, own)
        ax.set_title(_group_title(group, "\n"), loc="left")
        ax.set_ylim(0, 105)
    axes[0].set_ylabel(f"{STATISTIC_LABELS[statistic]} score (%)")
    what = (
        f"Bars: {STATISTIC_LABELS[statistic]} over tasks and seeds of return / 10 or success in "
        "per cent, at the env steps named or each task's budget where that is less; whiskers: "
        "its 95 % interval."
    )
    handles: list[Artist] = [handle(style) for style in styles.values()]
    if quoted:
        what += f" Quoted, not measured here: {shown.spec.quoted_from}."
        handles += quoted_handles(quoted)
    finish_figure(figure, handles, card_lines(shown, what, scored=not numbers.empty))
    return Drawing(
        [figure], _with_quoted(numbers, shown), _table(numbers, styles, groups), problems
    )


def interval_plot(shown: Shown) -> Drawing:
    """The interval plot of rliable, a page per group: a column per statistic, a row per series."""
    numbers, problems = _scores(shown, shown.spec.statistics)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    groups = [g for g in shown.groups() if (numbers["group"] == g.name).any()]
    pages = []
    for group in groups:
        own = numbers[numbers["group"] == group.name]
        there = [series for series in styles if len(of_series(own, series))]
        size = (1.7, 0.55 + _ROW * len(there))
        figure, axes = canvas(len(shown.spec.statistics), panel=size, columns=4)
        for ax, statistic in zip(axes, shown.spec.statistics, strict=True):
            _interval_rows(ax, own[own["statistic"] == statistic], there, styles)
            title = STATISTIC_LABELS[statistic]
            ax.set_title(title[0].upper() + title[1:], loc="left")
            ax.set_xlabel("score (%)")
            if ax is not axes[0]:
                ax.set_yticklabels([])
        what = f"{_group_title(group, ', ')}. Marks: statistic; bars: its 95 % interval."
        finish_figure(figure, (), card_lines(shown, what))
        pages.append(figure)
    return Drawing(pages, numbers, _table(numbers, styles, groups), problems)


def performance_profile(shown: Shown) -> Drawing:
    """A panel per group: the share of runs above each score, with 95 % bands."""
    numbers, problems = _for_each_group(shown, profiles)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    groups = [g for g in shown.groups() if (numbers["group"] == g.name).any()]
    figure, axes = canvas(len(groups))
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        for series, style in styles.items():
            own = of_series(numbers[numbers["group"] == group.name], series)
            if own.empty:
                continue
            shares = 100 * own.rename(columns={"value": "mean"})[["mean", "low", "high"]]
            band(ax, 100 * own["tau"], shares, style)
        ax.set_title(_group_title(group, ", "), loc="left")
        ax.set_xlabel("score τ (%)")
        ax.set_ylim(-3, 103)
        if index == 0:
            ax.set_ylabel("runs above τ (%)")
    what = "Lines: share of runs that score above τ; bands: 95 % intervals, point by point."
    finish_figure(figure, [handle(style) for style in styles.values()], card_lines(shown, what))
    return Drawing([figure], numbers, problems=problems)


def improvement(shown: Shown) -> Drawing:
    """A panel per group: how likely the first series beats each other one on a random task."""
    numbers, problems = _for_each_group(shown, improvements)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    left, right = ([f"{side}_{name}" for name in SERIES] for side in "xy")
    names = numbers[right].set_axis(SERIES, axis=1)
    styles = series_styles(names, shown.catalog)
    first, *others = styles
    against = numbers[(numbers[left] == list(first)).all(axis=1)]
    against = (
        against[right].set_axis(SERIES, axis=1).join(against[["group", "value", "low", "high"]])
    )
    groups = [g for g in shown.groups() if (against["group"] == g.name).any()]
    size = (2.1, 0.55 + _ROW * len(others))
    figure, axes = canvas(len(groups), panel=size, columns=min(3, len(groups)))
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        _interval_rows(ax, against[against["group"] == group.name], others, styles)
        ax.axvline(50, color="#444444", lw=0.8, zorder=1)
        ax.set_xlim(0, 103)
        ax.set_title(_group_title(group, ", "), loc="left")
        if index % 3:
            ax.set_yticklabels([])
        if index + 3 >= len(groups):
            ax.set_xlabel(f"P({styles[first].label} > other)")
        ax.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    what = (
        f"Marks: probability that a run of {styles[first].label} beats one of the other on a task "
        "chosen at random, ties counted half; bars: its 95 % interval."
    )
    finish_figure(figure, (), card_lines(shown, what))
    labels = {group.name: group.label for group in groups}
    table = short_table(against.assign(group=against["group"].map(labels)), ["group"], styles, 100)
    return Drawing([figure], numbers, table, problems)


def _scores(shown: Shown, statistics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Statistics at the horizon of the figure's groups."""
    return group_scores(
        shown.curves,
        shown.groups(),
        shown.rule,
        shown.bootstrap,
        statistics=statistics,
    )


def _for_each_group(
    shown: Shown,
    make: Callable[[ScoreCurves, Group, Rule, Bootstrap], tuple[pd.DataFrame, tuple[Problem, ...]]],
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """The tables of all groups in one, and what was met."""
    made = [make(shown.curves, group, shown.rule, shown.bootstrap) for group in shown.groups()]
    tables = [table for table, _ in made if len(table)] or [made[0][0]]
    return pd.concat(tables, ignore_index=True), tuple(p for _, own in made for p in own)


def _with_quoted(numbers: pd.DataFrame, shown: Shown) -> pd.DataFrame:
    """The numbers drawn, the quoted ones last, as fractions like the others."""
    rows = [
        {
            **{"source": "quoted", "variant": one["label"], "group": one["group"]},
            **{"statistic": shown.spec.statistics[0], "value": one["score"] / 100},
        }
        for one in shown.spec.quoted
    ]
    if not rows:
        return numbers
    return pd.concat([numbers, pd.DataFrame(rows)]) if len(numbers) else pd.DataFrame(rows)


def quoted_handles(quoted: Sequence[Mapping[str, Any]]) -> list[Artist]:
    """Legend entries of bars that are quoted."""
    labels = dict.fromkeys(f"{one['label']} (quoted)" for one in quoted)
    return [
        Patch(facecolor=QUOTED_COLORS[i % 2], hatch="....", edgecolor="white", label=label)
        for i, label in enumerate(labels)
    ]


def bars(
    ax: Axes,
    numbers: pd.DataFrame,
    styles: dict[Series, LineStyle],
    quoted: Sequence[tuple[str, float]],
) -> None:
    """A bar with whiskers and its height for each series that has one, then the quoted ones."""
    for place, (series, style) in enumerate(styles.items()):
        own = of_series(numbers, series)
        if own.empty:
            continue
        value, low, high = 100 * own[["value", "low", "high"]].to_numpy()[0]
        bar(ax, place, style, value, low, high)
    for place, (_, value) in enumerate(quoted):
        look = {
            "color": QUOTED_COLORS[place % 2],
            "hatch": "....",
            "edgecolor": "white",
            "lw": 0.3,
        }
        ax.bar(len(styles) + place, value, 0.82).patches[0].set(**look)
        at, up = (len(styles) + place, value), (0, 1.5)
        ax.annotate(f"{value:g}", at, up, textcoords="offset points", ha="center", fontsize=6)
    ax.set_xticks([])
    spare = max(0, _LEAST_BARS - len(styles) - len(quoted)) / 2
    ax.set_xlim(-0.6 - spare, len(styles) + len(quoted) - 0.4 + spare)
    ax.grid(visible=False, axis="x")


def _interval_rows(
    ax: Axes, numbers: pd.DataFrame, series: list[Series], styles: dict[Series, LineStyle]
) -> None:
    """A mark with its interval in a row of its own for each series, the first on top."""
    for place, one in enumerate(series):
        own = of_series(numbers, one)
        if own.empty:
            continue
        value, low, high = 100 * own[["value", "low", "high"]].to_numpy()[0]
        style = styles[one]
        if not np.isnan(low):
            width = max(high - low, 0.2)  # an interval of width zero is still to be seen
            ax.barh(place, width, 0.6, low, color=style.color, alpha=0.3 if style.dashes else 0.55)
        ax.plot([value, value], [place - 0.3, place + 0.3], color="#222222", lw=1.2)
    ax.use_sticky_edges = False
    ax.set_yticks(range(len(series)), [styles[one].label for one in series])
    ax.set_ylim(len(series) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def _group_title(group: Group, between: str) -> str:
    """Label, number of tasks and env steps of a group."""
    count = len(group.tasks)
    at = "full budget" if group.horizon is None else f"{_steps(group.horizon)} steps"
    return f"{group.label}{between}{count} task{'s' if count > 1 else ''}, {at}"


def _steps(count: int) -> str:
    """4M or 20k."""
    return f"{count / 1e6:g}M" if count >= 1_000_000 else f"{count / 1e3:g}k"


def _table(
    numbers: pd.DataFrame, styles: dict[Series, LineStyle], groups: list[Group]
) -> pd.DataFrame:
    """A row per group and statistic, a column per series, in per cent."""
    labels = {group.name: _group_title(group, ", ") for group in groups}
    named = numbers.assign(
        group=numbers["group"].map(labels), statistic=numbers["statistic"].map(STATISTIC_LABELS)
    )
    return short_table(named, ["group", "statistic"], styles, 100)


STAT_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "group_bars": group_bars,
    "interval_plot": interval_plot,
    "performance_profile": performance_profile,
    "improvement": improvement,
}
