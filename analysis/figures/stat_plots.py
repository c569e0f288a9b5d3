"""Figures of statistics over tasks: bars, intervals, performance profiles, improvement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.figures.captions import Marks, card_lines
from analysis.figures.figure_specs import FigureSpec, LineStyle, quotes_of
from analysis.figures.legends import broken
from analysis.figures.page import canvas, finish_figure, set_title
from analysis.figures.styles import (
    Drawing,
    Shown,
    band,
    bar,
    bar_handle,
    handle,
    of_series,
    series_styles,
    short_table,
    write_value,
)
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.aggregate import group_scores, improvements, profiles
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import STATISTIC_LABELS, Coverage
from analysis.stats.horizons import Group
from analysis.stats.intervals import has_width
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import Series
from analysis.stats.t_intervals import NO_INTERVAL

_BAR_PANEL = 0.9
WIDE_PANEL = 1.8
"""Least widths of a panel of bars, and of one of long rows, in inches."""
BARS_TOP = 112
"""Upper end of the axis of bars, in percent, above the values written on them."""
QUOTED_COLORS = ("#8C8C8C", "#BFBFBF")
"""Grays of quoted numbers."""
_NAME = 40
"""Most characters in a line of the name of a row."""
_LEAST_BARS = 4
"""Panels with fewer bars reserve the width of this many."""
_ROW = 0.2
"""Height of one line of an interval plot, in inches."""
_MEDIAN = "Medians have no interval, because none covers them in 95 % of cases."


def group_bars(shown: Shown) -> Drawing:
    """Draw a panel per group and a bar per series: a statistic at the group's horizon.

    Quoted numbers (`group`, `label`, `score`) are drawn beside the series.
    """
    statistic = shown.spec.statistics[0]
    numbers, problems = _scores(shown, (statistic,))
    quoted = quotes_of(shown.spec, ("group", "label", "score"))
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    groups = [group for group in shown.groups() if group.name in set(numbers["group"])]
    page, axes = canvas(len(groups), shown.layout, least_width=_BAR_PANEL)
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        own = [(quote["label"], quote["score"]) for quote in quoted if quote["group"] == group.name]
        bars(ax, numbers[numbers["group"] == group.name], styles, own)
        set_title(page, ax, group_title(group, "\n").replace(", ", "\n"))
        set_bar_range(ax)
        ax.tick_params(labelleft=index % page.columns == 0)
    page.labels = ("", f"{STATISTIC_LABELS[statistic]} score (%)")
    marks = Marks(
        f"Bars: {STATISTIC_LABELS[statistic]} over tasks and seeds of return / 10 or success in "
        "percent, at the env steps in the title or the task's budget if that is less",
        "whiskers: its confidence interval",
        quoted_text(shown.spec) if quoted else "",
    )
    handles: list[Artist] = [bar_handle(style) for style in styles.values()]
    if quoted:
        handles += quoted_handles(quoted)
    finish_figure(page, handles, card_lines(shown, marks, numbers))
    return Drawing([page], _with_quoted(numbers, shown), _table(numbers, styles, groups), problems)


def set_bar_range(ax: Axes) -> None:
    """Set the value axis of bars: from 0 to 100 %, or further if scores of users' tasks are.

    Args:
        ax: axes with the bars.
    """
    low, high = (BARS_TOP / 100 * end for end in ax.dataLim.intervaly)
    ax.set_ylim(min(low, 0), max(high, BARS_TOP))


def interval_plot(shown: Shown) -> Drawing:
    """Draw rliable's interval plot, one page per group: statistics as columns, series as rows."""
    numbers, problems = _scores(shown, shown.spec.statistics)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    groups = [g for g in shown.groups() if (numbers["group"] == g.name).any()]
    pages = []
    for group in groups:
        own = numbers[numbers["group"] == group.name]
        drawn_series = [series for series in styles if len(of_series(own, series))]
        height = 0.5 + _ROW * name_lines(drawn_series, styles)
        page, axes = canvas(len(shown.spec.statistics), shown.layout, height=height)
        for index, (ax, statistic) in enumerate(zip(axes, shown.spec.statistics, strict=True)):
            _interval_rows(ax, own[own["statistic"] == statistic], drawn_series, styles)
            title = STATISTIC_LABELS[statistic]
            set_title(page, ax, title[0].upper() + title[1:])
            if statistic == "optimality_gap":
                ax.set_xlabel("lower is better")
            ax.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
            ax.tick_params(labelleft=index % page.columns == 0)
        page.suptitle(group_title(group, ", "), x=0.01, ha="left", fontweight="bold")
        page.labels = ("score (%)", "")
        marks = Marks(
            f"{group_title(group, ', ')}. Marks: statistic",
            "bars: its confidence interval",
            _MEDIAN if NO_INTERVAL in shown.spec.statistics else "",
        )
        finish_figure(page, (), card_lines(shown, marks, own))
        pages.append(page)
    return Drawing(pages, numbers, _table(numbers, styles, groups), problems)


def performance_profile(shown: Shown) -> Drawing:
    """Draw a panel per group: fraction of runs above each score, with 95 % bands."""
    numbers, problems = _for_each_group(shown, profiles)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    groups = [g for g in shown.groups() if (numbers["group"] == g.name).any()]
    page, axes = canvas(len(groups), shown.layout)
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        for series, style in styles.items():
            own = of_series(numbers[numbers["group"] == group.name], series)
            if own.empty:
                continue
            shares = 100 * own.rename(columns={"value": "mean"})[["mean", "low", "high"]]
            band(ax, 100 * own["tau"], shares, style)
        set_title(page, ax, group_title(group, "\n"))
        ax.set_ylim(-3, 103)
        ax.tick_params(labelleft=index % page.columns == 0)
    page.labels = ("score τ (%)", "runs above τ (%)")
    marks = Marks(
        "Lines: fraction of runs with a score above τ", "bands: pointwise confidence intervals"
    )
    card = card_lines(shown, marks, numbers, found=())
    finish_figure(page, [handle(style) for style in styles.values()], card)
    return Drawing([page], numbers, problems=problems)


def improvement(shown: Shown) -> Drawing:
    """Draw a panel per group: probability of improvement of the first series over each other."""
    numbers, problems = _for_each_group(shown, improvements)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    left, right = ([f"{side}_{name}" for name in SERIES] for side in "xy")
    names = numbers[right].set_axis(SERIES, axis=1)
    styles = series_styles(names, shown.catalog)
    first, *others = styles
    against = numbers[(numbers[left] == list(first)).all(axis=1)]
    against = (
        against[right]
        .set_axis(SERIES, axis=1)
        .join(against[["group", "value", "low", "high", "coverage"]])
    )
    groups = [g for g in shown.groups() if (against["group"] == g.name).any()]
    height = 0.45 + _ROW * name_lines(others, styles)
    page, axes = canvas(len(groups), shown.layout, least_width=WIDE_PANEL, height=height)
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        _interval_rows(ax, against[against["group"] == group.name], others, styles)
        ax.axvline(50, color="#444444", lw=0.8, zorder=1)
        ax.set_xlim(-3, 103)  # marks at 0 and 100 are whole
        ax.set_xticks(range(0, 101, 25))
        set_title(page, ax, group_title(group, "\n"))
        ax.tick_params(labelleft=index % page.columns == 0)
        ax.tick_params(labelbottom=index + page.columns >= len(groups))
    page.labels = (f"probability that {styles[first].label} scores higher (%)", "")
    marks = Marks(
        f"Marks: probability of improvement: that a run of {styles[first].label} scores higher "
        "than a run of the other on a random task, ties counted half",
        "bars: its confidence interval",
    )
    found = _improvement_coverage(shown, against, groups)
    reference = against[["group"]].assign(**dict(zip(SERIES, first, strict=True)))
    drawn = pd.concat([against[[*SERIES, "group", "low", "high"]], reference])
    finish_figure(page, (), card_lines(shown, marks, drawn, found=found))
    labels = {group.name: group.label for group in groups}
    table = short_table(against.assign(group=against["group"].map(labels)), ["group"], styles, 100)
    return Drawing([page], numbers, table, problems)


def _improvement_coverage(
    shown: Shown, against: pd.DataFrame, groups: Sequence[Group]
) -> list[Coverage]:
    """Return the measured coverage of probabilities of improvement.

    Args:
        shown: inputs of the figure.
        against: columns `SERIES`, `group`, `low`, `high` and `coverage`.
        groups: the groups drawn.
    """
    runs, found = shown.curves.runs, []
    for group in groups:
        own = runs[runs["task"].isin(group.tasks)]
        for row in against[against["group"] == group.name].to_dict("records"):
            series = tuple(str(row[name]) for name in SERIES)
            counts = of_series(own, series).groupby("task")["seed"].count()
            seeds, share = (int(counts.min()), int(counts.max())), row["coverage"]
            if np.isfinite(share) and has_width(row["low"], row["high"]):
                size = len(group.tasks)
                found.append(Coverage(series, group.label, size, seeds, "improvement", share))
    return found


def _scores(shown: Shown, statistics: Sequence[str]) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return statistics at the horizon of the figure's groups."""
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
    """Return the concatenated tables of all groups, and the problems found."""
    made = [make(shown.curves, group, shown.rule, shown.bootstrap) for group in shown.groups()]
    tables = [table for table, _ in made if len(table)] or [made[0][0]]
    return pd.concat(tables, ignore_index=True), tuple(p for _, own in made for p in own)


def _with_quoted(numbers: pd.DataFrame, shown: Shown) -> pd.DataFrame:
    """Return the plotted numbers followed by the quoted ones, scaled to [0, 1]."""
    rows = [
        {
            **{"source": "quoted", "variant": quote["label"], "group": quote["group"]},
            **{"statistic": shown.spec.statistics[0], "value": quote["score"] / 100},
        }
        for quote in shown.spec.quoted
    ]
    return pd.concat([numbers, pd.DataFrame(rows)]) if rows else numbers


def quoted_text(spec: FigureSpec) -> str:
    """Return the sentence of a caption on quoted bars."""
    return f"Gray bars: quoted from {spec.quoted_from}, not measured here."


def quoted_handles(quoted: Sequence[Mapping[str, Any]]) -> list[Artist]:
    """Return the legend entries of quoted bars."""
    labels = dict.fromkeys(f"{quote['label']} (quoted)" for quote in quoted)
    return [Patch(**_quoted_look(i), label=label) for i, label in enumerate(labels)]


def _quoted_look(place: int) -> dict[str, Any]:
    """Return the properties of a quoted bar."""
    color = QUOTED_COLORS[place % len(QUOTED_COLORS)]
    return {"facecolor": color, "edgecolor": "white", "hatch": "....", "lw": 0.3}


def bars(
    ax: Axes,
    numbers: pd.DataFrame,
    styles: dict[Series, LineStyle],
    quoted: Sequence[tuple[str, float]],
) -> None:
    """Draw a bar with whiskers and its value for each series, then the quoted bars.

    Args:
        ax: axes to draw on.
        numbers: columns `SERIES`, `value`, `low`, `high`, scores in [0, 1].
        styles: style of each series.
        quoted: label and score in percent of each quoted number.
    """
    for place, (series, style) in enumerate(styles.items()):
        own = of_series(numbers, series)
        if own.empty:
            continue
        value, low, high = 100 * own[["value", "low", "high"]].to_numpy()[0]
        bar(ax, place, style, value, low, high)
    for place, (_, value) in enumerate(quoted):
        ax.bar(len(styles) + place, value, 0.82, **_quoted_look(place))
        write_value(ax, len(styles) + place, value, value)
    ax.set_xticks([])
    padding = max(0, _LEAST_BARS - len(styles) - len(quoted)) / 2
    ax.set_xlim(-0.6 - padding, len(styles) + len(quoted) - 0.4 + padding)
    ax.grid(visible=False, axis="x")


def _interval_rows(
    ax: Axes, numbers: pd.DataFrame, series: list[Series], styles: dict[Series, LineStyle]
) -> None:
    """Draw a mark with its interval in a separate row for each series, the first on top."""
    for place, key in enumerate(series):
        own = of_series(numbers, key)
        if own.empty:
            continue
        value, low, high = 100 * own[["value", "low", "high"]].to_numpy()[0]
        style = styles[key]
        if has_width(low, high):
            width = max(high - low, 0.2)  # keeps a narrow interval visible
            ax.barh(place, width, 0.6, low, color=style.color, alpha=0.3 if style.dashes else 0.55)
        ax.plot([value, value], [place - 0.3, place + 0.3], color="#222222", lw=1.2)
    ax.use_sticky_edges = False
    ax.set_yticks(range(len(series)), [row_name(styles[key]) for key in series])
    ax.set_ylim(len(series) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def row_name(style: LineStyle) -> str:
    """Return the name of a row of a panel, in lines that leave space for the panel."""
    return broken(style.label, _NAME)


def name_lines(series: Sequence[Series], styles: Mapping[Series, LineStyle]) -> int:
    """Return the lines that rows of equal height take, so that each holds the longest name."""
    return len(series) * max(row_name(styles[key]).count("\n") + 1 for key in series)


def group_title(group: Group, between: str) -> str:
    """Return label, number of tasks and env steps of a group."""
    count = len(group.tasks)
    at = "full budget" if group.horizon is None else f"{_steps(group.horizon)} steps"
    return f"{group.label}{between}{count} task{'s' if count > 1 else ''}, {at}"


def _steps(count: int) -> str:
    """Return a number such as 4M or 20k."""
    return f"{count / 1e6:g}M" if count >= 1_000_000 else f"{count / 1e3:g}k"


def _table(
    numbers: pd.DataFrame, styles: dict[Series, LineStyle], groups: list[Group]
) -> pd.DataFrame:
    """Return a row per group and statistic and a column per series, in percent."""
    labels = {group.name: group_title(group, ", ") for group in groups}
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
