"""Figures of multi-task agents: score on a task set against updates, at the end, and per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.figure_specs import LineStyle, quotes_of
from analysis.figures.line_plots import draw_means
from analysis.figures.page import (
    canvas,
    finish_axes,
    finish_figure,
    multitask_card_lines,
    short_name,
)
from analysis.figures.stat_plots import bars, quoted_handles
from analysis.figures.styles import Drawing, Shown, handle, of_series, series_styles, short_table
from analysis.records.load import AGENTS
from analysis.records.problems import Problem
from analysis.stats.multitask_scores import agents_of, final_scores, set_curves, task_scores
from analysis.stats.selection import INTERVAL, Series
from tdmpc2.envs.tasks import TASKS

_BARS_WIDTH = 7.2
_BARS_HEIGHT = 2.3
_LEAST_TASKS = 12
"""Rows with fewer tasks reserve the width of this many bars."""
_LEAST_SCORE = 5.0
"""Smallest upper end of the score axis."""
_TASK_SIZE = 5.5
_REFERENCES = ("uniform", "zero", "untrained")
_SCORE = "score (%)"


def multitask_curves(shown: Shown) -> Drawing:
    """Draw a panel per task set: mean score over its tasks against updates, 95 % intervals."""
    numbers, problems = set_curves(shown.curves, shown.rule, shown.bootstrap)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    sets = list(dict.fromkeys(numbers["task_set"]))
    figure, axes = canvas(len(sets))
    for ax, name in zip(axes, sets, strict=True):
        own = numbers[numbers["task_set"] == name]
        draw_means(ax, own.assign(**100 * own[INTERVAL]), styles)
        ax.set_title(_set_title(name, own["num_tasks"].iloc[0]), loc="left")
    crosses = _draw_diverged(dict(zip(sets, axes, strict=True)), shown, styles)
    last = int(numbers["step"].max())
    finish_axes(axes, [_SCORE] * len(sets), last, unit="updates")
    what = "Lines: mean over tasks and seeds of return / 10 or success in percent; bands: its 95 % "
    handles = [*map(handle, styles.values()), *crosses]
    finish_figure(figure, handles, multitask_card_lines(shown, f"{what}confidence interval."))
    final, more = final_scores(shown.curves, shown.rule, shown.bootstrap)
    return Drawing([figure], numbers, final_table(final, styles), (*problems, *more))


def multitask_bars(shown: Shown) -> Drawing:
    """Draw a panel per task set and a bar per series: the final mean score over its tasks.

    Quoted numbers (`task_set`, `label`, `score`) are drawn beside the runs, or alone.
    """
    quoted = quotes_of(shown.spec, ("task_set", "label", "score"))
    numbers, problems = final_scores(shown.curves, shown.rule, shown.bootstrap)
    if numbers.empty and not quoted:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    sets = list(dict.fromkeys([*(quote["task_set"] for quote in quoted), *numbers["task_set"]]))
    figure, axes = canvas(len(sets), panel=(1.9, 1.9), columns=min(len(sets), 4))
    for ax, name in zip(axes, sets, strict=True):
        own = [(quote["label"], quote["score"]) for quote in quoted if quote["task_set"] == name]
        bars(ax, numbers[numbers["task_set"] == name], styles, own)
        ax.set_title(short_name(name), loc="left")
        ax.set_ylim(0, 105)
    axes[0].set_ylabel(_SCORE)
    what = (
        "Bars: mean over tasks and seeds of return / 10 or success in percent, at the last update "
        "that all seeds reached; whiskers: its 95 % confidence interval."
    )
    handles: list[Artist] = [handle(style) for style in styles.values()]
    if quoted:
        what += f" Dotted bars: quoted from {shown.spec.quoted_from}, not measured here."
        handles += quoted_handles(quoted)
    finish_figure(figure, handles, multitask_card_lines(shown, what))
    rows = [{"source": "quoted", "variant": q["label"], "task_set": q["task_set"]} for q in quoted]
    quoted_rows = pd.DataFrame(rows).assign(value=[quote["score"] / 100 for quote in quoted])
    filled = [table for table in (numbers, quoted_rows) if len(table)]
    table = final_table(numbers, styles)
    return Drawing([figure], pd.concat(filled, ignore_index=True), table, problems)


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
                pages.append(_task_page(shown, str(name), own, style))
    return Drawing(pages, numbers, table, problems)


def task_table(shown: Shown) -> tuple[pd.DataFrame, pd.DataFrame, tuple[Problem, ...]]:
    """Return the final score of every task, as numbers and as text, and the problems found."""
    numbers, problems = task_scores(shown.curves, shown.rule, shown.bootstrap)
    domains = [TASKS[task].domain if task in TASKS else "other" for task in numbers["task"]]
    numbers = numbers.assign(domain=domains).join(
        _references(shown.records.reference_scores), on="task"
    )
    titles = [TASKS[task].title if task in TASKS else task for task in numbers["task"]]
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
                    **{"agents": style.label.replace("\n", " "), "tasks": row["task_set"]},
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
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    return f"{value:.1f}" if np.isnan(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _references(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the reference scores by task, scaled to [0, 1]; only returns were measured."""
    returns = [task in TASKS and TASKS[task].metric == "return" for task in scores["task"]]
    known = scores[np.array(returns, bool)]
    wide = known.pivot(index="task", columns="policy", values="mean") / 1000
    return wide.reindex(columns=["uniform", "zero"]).astype("float64")


def _task_page(shown: Shown, name: str, numbers: pd.DataFrame, style: LineStyle) -> Figure:
    """Draw the bars of one series."""
    domains = list(dict.fromkeys(numbers["domain"]))
    figure, axes = canvas(len(domains), panel=(_BARS_WIDTH, _BARS_HEIGHT), columns=1)
    runs = shown.records.runs
    runs = runs[(runs[AGENTS] == numbers[AGENTS].iloc[0].tolist()).all(axis=1)]
    lines = [r for r in _REFERENCES if shown.spec.reference_scores and numbers[r].notna().any()]
    highest = 100 * float(numbers[["value", "high", *lines]].max().max())
    for ax, domain in zip(axes, domains, strict=True):
        own = numbers[numbers["domain"] == domain]
        _task_bars(ax, own, style)
        ax.set_ylim(0, min(104, max(_LEAST_SCORE, 1.05 * highest)))
        for reference in lines:
            look = shown.catalog.reference_scores[reference]
            level = 100 * own[reference].to_numpy()
            x = np.arange(len(own))
            marks = ax.hlines(level, x - 0.48, x + 0.48, color=look.color, lw=1.1, zorder=4)
            marks.set_linestyle((0, look.dashes))
        named = shown.catalog.groups
        label = named[domain].label if domain in named else domain
        count = f"{len(own)} task{'s' * (len(own) > 1)}"
        ax.set_title(f"{label}: mean {100 * own['value'].mean():.1f} over {count}", loc="left")
        ax.set_ylabel(_SCORE)
    at, seeds = numbers["num_updates"].iloc[0], numbers["num_seeds"].max()
    label = f"{style.label}, {_set_title(name, len(numbers))}, at update {at:,}"
    handles = [
        Patch(color=style.color, label=label),
        *(handle(shown.catalog.reference_scores[reference]) for reference in lines),
    ]
    what = (
        f"Bars: mean over {seeds} seed{'s' * (seeds > 1)} of return / 10 or success in percent; "
        "whiskers: its 95 % confidence interval."
    )
    finish_figure(figure, handles, multitask_card_lines(shown, what, runs))
    return figure


def _task_bars(ax: Axes, numbers: pd.DataFrame, style: LineStyle) -> None:
    """Draw a bar for each task, with whiskers if there is an interval."""
    x = np.arange(len(numbers))
    value, low, high = (100 * numbers[name].to_numpy() for name in ("value", "low", "high"))
    ax.bar(x, value, 0.8, color=style.color, edgecolor="white", lw=0.3, alpha=0.85)
    has_interval = ~np.isnan(low)
    ends = np.maximum([value - low, high - value], 0)[
        :, has_interval
    ]  # rounding can make them negative
    ax.errorbar(
        x[has_interval], value[has_interval], ends, color="#222222", ls="", lw=0.7, capsize=1.2
    )
    titles = [TASKS[task].title if task in TASKS else task for task in numbers["task"]]
    ax.set_xticks(x, titles, rotation=90, fontsize=_TASK_SIZE)
    ax.tick_params(axis="x", length=0)
    padding = max(0, _LEAST_TASKS - len(x))
    ax.set_xlim(-0.6, len(x) - 0.4 + padding)
    ax.grid(visible=False, axis="x")


def _set_title(name: str, num_tasks: int) -> str:
    """Return the name of a task set and its number of tasks."""
    return f"{short_name(name)} ({num_tasks} task{'s' * (num_tasks > 1)})"


MULTITASK_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "multitask_curves": multitask_curves,
    "multitask_bars": multitask_bars,
    "multitask_tasks": multitask_tasks,
}
