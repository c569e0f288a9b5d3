"""Figures of multi-task agents: score on a task set against updates, at the end, and per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.captions import Marks, multitask_card_lines, short_name
from analysis.figures.figure_specs import LineStyle, quotes_of
from analysis.figures.line_plots import draw_means
from analysis.figures.page import Page, canvas, finish_axes, finish_figure, set_title
from analysis.figures.stat_plots import BARS_TOP, bars, quoted_handles, quoted_text
from analysis.figures.styles import (
    Drawing,
    Shown,
    bar_handle,
    bar_look,
    handle,
    of_series,
    series_styles,
    short_table,
    whiskers,
)
from analysis.records.load import AGENTS
from analysis.records.problems import Problem
from analysis.stats.estimate_texts import estimate_text
from analysis.stats.multitask_scores import agents_of, final_scores, set_curves, task_scores
from analysis.stats.selection import INTERVAL, Series
from analysis.stats.task_titles import task_titles
from tdmpc2.envs.tasks import TASKS

_BARS_HEIGHT = 2.1
_SET_WIDTH = 1.9
"""Least width of a panel with the bars of a task set."""
_LEAST_TASKS, _MOST_TASKS = 12, 30
"""Rows with fewer tasks reserve the width of this many bars; more tasks are divided among rows."""
_LEAST_SCORE = 5.0
"""Smallest upper end of the score axis."""
_LOW_SCORE, _TOP = 50.0, 104.0
"""Agents with a higher score than the first have an axis that ends at the second."""
_TASK_SIZE = 7
_REFERENCES = ("uniform", "zero", "untrained")
_SCORE = "score (%)"


def multitask_curves(shown: Shown) -> Drawing:
    """Draw a panel per task set: mean score over its tasks against updates, 95 % intervals."""
    numbers, problems = set_curves(shown.curves, shown.rule, shown.bootstrap)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    sets = list(dict.fromkeys(numbers["task_set"]))
    page, axes = canvas(len(sets), shown.layout, least_width=_SET_WIDTH)
    for ax, name in zip(axes, sets, strict=True):
        own = numbers[numbers["task_set"] == name]
        draw_means(ax, own.assign(**100 * own[INTERVAL]), styles)
        set_title(page, ax, _set_title(name, own["num_tasks"].iloc[0]))
    crosses = _draw_diverged(dict(zip(sets, axes, strict=True)), shown, styles)
    last = int(numbers["step"].max())
    finish_axes(page, [_SCORE] * len(sets), last, unit="updates")
    marks = Marks(
        "Lines: mean over tasks and seeds of return / 10 or success in percent",
        "bands: its confidence interval",
    )
    handles = [*map(handle, styles.values()), *crosses]
    finish_figure(page, handles, multitask_card_lines(shown, marks))
    final, more = final_scores(shown.curves, shown.rule, shown.bootstrap)
    return Drawing([page], numbers, final_table(final, styles), (*problems, *more))


def multitask_bars(shown: Shown) -> Drawing:
    """Draw a panel per task set and a bar per series: the final mean score over its tasks.

    Quoted numbers (`task_set`, `label`, `score`) are drawn beside the runs.
    """
    quoted = quotes_of(shown.spec, ("task_set", "label", "score"))
    numbers, problems = final_scores(shown.curves, shown.rule, shown.bootstrap)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    sets = list(dict.fromkeys(numbers["task_set"]))
    page, axes = canvas(len(sets), shown.layout, least_width=_SET_WIDTH)
    for ax, name in zip(axes, sets, strict=True):
        own = [(quote["label"], quote["score"]) for quote in quoted if quote["task_set"] == name]
        bars(ax, numbers[numbers["task_set"] == name], styles, own)
        set_title(page, ax, short_name(name))
        ax.set_ylim(0, BARS_TOP)
    page.labels = ("", _SCORE)
    marks = Marks(
        "Bars: mean over tasks and seeds of return / 10 or success in percent, at the last update "
        "that all seeds reached",
        "whiskers: its confidence interval",
        quoted_text(shown.spec) if quoted else "",
    )
    handles: list[Artist] = [bar_handle(style) for style in styles.values()]
    if quoted:
        handles += quoted_handles(quoted)
    finish_figure(page, handles, multitask_card_lines(shown, marks))
    rows = [{"source": "quoted", "variant": q["label"], "task_set": q["task_set"]} for q in quoted]
    quoted_rows = pd.DataFrame(rows).assign(value=[quote["score"] / 100 for quote in quoted])
    filled = [table for table in (numbers, quoted_rows) if len(table)]
    table = final_table(numbers, styles)
    return Drawing([page], pd.concat(filled, ignore_index=True), table, problems)


def multitask_tasks(shown: Shown) -> Drawing:
    """Draw a page per series and a row of bars per domain: the final score of every task.

    With `reference_scores`, each bar is marked with the reference scores of its task.
    """
    numbers, table, problems = task_table(shown)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    pages = []
    for name, of_set in numbers.groupby("task_set", sort=False):
        for series, style in styles.items():
            own = of_series(of_set, series)
            if len(own):
                plain = replace(style, hatch="")  # bars are narrow, and there is one series
                pages.append(_task_page(shown, str(name), own, plain))
    return Drawing(pages, numbers, table, problems)


def task_table(shown: Shown) -> tuple[pd.DataFrame, pd.DataFrame, tuple[Problem, ...]]:
    """Return the final score of every task, as numbers and as text, and the problems found."""
    numbers, problems = task_scores(shown.curves, shown.rule, shown.bootstrap)
    domains = [TASKS[task].domain if task in TASKS else "other" for task in numbers["task"]]
    numbers = numbers.assign(domain=domains).join(
        _references(shown.records.reference_scores), on="task"
    )
    names = task_titles(numbers["task"].unique())
    titles = [names[task] for task in numbers["task"]]
    rows = numbers.rename(columns={"task_set": "tasks"}).assign(task=titles)
    styles = series_styles(numbers, shown.catalog)
    return numbers, short_table(rows, ["tasks", "domain", "task"], styles, 100), problems


def _draw_diverged(
    axes: dict[str, Axes], shown: Shown, styles: dict[Series, LineStyle]
) -> list[Artist]:
    """Draw a cross where a run diverged; return the legend entry if there is one."""
    crosses = []
    for agents in agents_of(shown.curves, []):
        *series, name, _ = agents.key
        color, ax = styles[tuple(series)].color, axes[name]
        last = shown.curves.last_steps[agents.rows].min(axis=0)
        for seed in np.flatnonzero(agents.runs["state"] == "DIVERGED"):
            score = agents.values(last[[seed]], shown.rule)[:, seed].mean()
            crosses += ax.plot(last[seed], 100 * score, color=color, marker="x", ms=4, zorder=5)
    return [Line2D([], [], color="k", marker="x", ls="", ms=4, label="run diverged")] * bool(
        crosses
    )


def final_table(numbers: pd.DataFrame, styles: dict[Series, LineStyle]) -> pd.DataFrame:
    """Return a row per series: score with its interval, number of updates, and seeds."""
    rows = []
    for series, style in styles.items():
        for row in of_series(numbers, series).to_dict("records"):
            rows.append(
                {
                    **{"agents": style.label, "tasks": row["task_set"]},
                    **{"updates": updates_text(row), "score (%)": score_text(row)},
                    **{"seeds": str(row["num_seeds"])},
                }
            )
    return pd.DataFrame(rows)


def updates_text(row: Mapping[Any, Any]) -> str:
    """Return `10,000,000`, or `3,000,000 of 10,000,000` if a run has not reached its budget."""
    at, budget = row["num_updates"], row["budget"]
    return f"{at:,} of {budget:,.0f}" if at < budget < np.inf else f"{at:,}"


def score_text(row: Mapping[Any, Any]) -> str:
    """Return `57.1 [56.0, 58.2]`, or the score alone if there is no interval."""
    return estimate_text(*(100 * row[name] for name in ("value", "low", "high")))


def _references(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the reference scores by task, scaled to [0, 1]; only returns were measured."""
    returns = [task in TASKS and TASKS[task].metric == "return" for task in scores["task"]]
    known = scores[np.array(returns, bool)]
    wide = known.pivot(index="task", columns="policy", values="mean") / 1000
    return wide.reindex(columns=["uniform", "zero"]).astype("float64")


def _task_page(shown: Shown, name: str, numbers: pd.DataFrame, style: LineStyle) -> Page:
    """Draw the bars of one series."""
    rows = _rows_of_tasks(numbers)
    page, axes = canvas(
        len(rows), shown.layout, least_width=shown.layout.width, height=_BARS_HEIGHT
    )
    runs = shown.records.runs
    runs = runs[(runs[AGENTS] == numbers[AGENTS].iloc[0].tolist()).all(axis=1)]
    lines = [r for r in _REFERENCES if shown.spec.reference_scores and numbers[r].notna().any()]
    highest = 100 * float(numbers[["value", "high", *lines]].max().max())
    most = max(len(own) for own in rows)
    previous = ""
    for ax, own in zip(axes, rows, strict=True):
        _task_bars(ax, own, style, max(most, _LEAST_TASKS))
        # Most agents have the whole axis, so that their pages can be compared.
        ax.set_ylim(0, _TOP if highest > _LOW_SCORE else max(_LEAST_SCORE, 1.05 * highest))
        for reference in lines:
            look = shown.catalog.reference_scores[reference]
            level = 100 * own[reference].to_numpy()
            x = np.arange(len(own))
            drawn = ax.hlines(level, x - 0.48, x + 0.48, color=look.color, lw=1.1, zorder=4)
            drawn.set_linestyle((0, look.dashes))
        domain = str(own["domain"].iloc[0])
        of_domain = numbers[numbers["domain"] == domain]
        if domain != previous:
            set_title(page, ax, _domain_title(domain, of_domain, shown))
        previous = domain
        ax.set_ylabel(_SCORE)
    at, seeds = numbers["num_updates"].iloc[0], numbers["num_seeds"].max()
    label = f"{style.label}, {_set_title(name, len(numbers))}, at update {at:,}"
    handles = [
        bar_handle(replace(style, label=label)),
        *(handle(shown.catalog.reference_scores[reference]) for reference in lines),
    ]
    marks = Marks(
        f"Bars: mean over {seeds} seed{'s' * (seeds > 1)} of return / 10 or success in percent",
        "whiskers: its confidence interval",
    )
    finish_figure(page, handles, multitask_card_lines(shown, marks, runs))
    return page


def _rows_of_tasks(numbers: pd.DataFrame) -> list[pd.DataFrame]:
    """Divide the tasks into rows of one domain and at most `_MOST_TASKS` tasks."""
    rows = []
    for _, own in numbers.groupby("domain", sort=False):
        count = ceil(len(own) / ceil(len(own) / _MOST_TASKS))
        rows += [own.iloc[start : start + count] for start in range(0, len(own), count)]
    return rows


def _domain_title(domain: str, numbers: pd.DataFrame, shown: Shown) -> str:
    """Return the name of a domain, and the mean over its tasks."""
    named = shown.catalog.groups
    label = named[domain].label if domain in named else domain
    count = f"{len(numbers)} task{'s' * (len(numbers) > 1)}"
    return f"{label}: mean {100 * numbers['value'].mean():.1f} over {count}"


def _task_bars(ax: Axes, numbers: pd.DataFrame, style: LineStyle, places: int) -> None:
    """Draw a bar for each task, with whiskers if there is an interval, on an axis of `places`."""
    x = np.arange(len(numbers))
    value, low, high = (100 * numbers[name].to_numpy() for name in ("value", "low", "high"))
    ax.bar(x, value, 0.8, **bar_look(style))
    has_interval = ~np.isnan(low)
    ends = np.maximum([value - low, high - value], 0)[
        :, has_interval
    ]  # rounding can make them negative
    whiskers(ax, x[has_interval], value[has_interval], ends, width=0.7, cap=1.2)
    titles = list(task_titles(numbers["task"]).values())
    ax.set_xticks(x, titles, rotation=90, fontsize=_TASK_SIZE)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, places - 0.4)
    ax.grid(visible=False, axis="x")


def _set_title(name: str, num_tasks: int) -> str:
    """Return the name of a task set and its number of tasks."""
    return f"{short_name(name)} ({num_tasks} task{'s' * (num_tasks > 1)})"


MULTITASK_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "multitask_curves": multitask_curves,
    "multitask_bars": multitask_bars,
    "multitask_tasks": multitask_tasks,
}
