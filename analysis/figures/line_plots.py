"""Learning curves: score against env steps, per task or averaged over a group of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.captions import Marks, card_lines
from analysis.figures.figure_specs import Catalog, LineStyle
from analysis.figures.page import Page, canvas, finish_axes, finish_figure, set_title
from analysis.figures.styles import (
    Drawing,
    Shown,
    band,
    dash,
    handle,
    of_series,
    series_styles,
    short_table,
)
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.aggregate import group_curves
from analysis.stats.coverage import STATISTIC_LABELS
from analysis.stats.horizons import OWN, own_environments
from analysis.stats.rules import is_near
from analysis.stats.selection import INTERVAL, Series, has_known_range
from analysis.stats.task_curves import REFERENCE_LINES, reference_scores, task_curves
from analysis.stats.task_titles import task_titles
from tdmpc2.envs.tasks import TASKS

AXES = {"episode_return": ("episode return", 1.0), "episode_success": ("success (%)", 100.0)}
"""Label of the value axis, and factor on the recorded values, by metric."""
_RETURN = AXES["episode_return"][0]
_ROW = 4
"""Panels per row of a page in the default width, which pages fill as far as possible."""


def learning_curves(shown: Shown) -> Drawing:
    """Draw a panel per task: mean over seeds with its 95 % interval, and optionally each seed."""
    spec, catalog = shown.spec, shown.catalog
    numbers, problems = task_curves(shown.curves, shown.rule, shown.bootstrap)
    if spec.only_ours and len(numbers):
        ours = numbers[numbers["source"] == RUNS_SOURCE].groupby("task")["step"].max()
        numbers = numbers[numbers["step"] <= numbers["task"].map(ours)]
        # A curve needs at least two points.
        points = numbers.groupby(SERIES)["step"].transform("nunique")
        numbers = numbers[(points > 1) | (numbers["source"] == RUNS_SOURCE)]
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    if spec.reference_scores:
        numbers = numbers.merge(reference_scores(shown.records), left_on="task", right_index=True)
    styles = series_styles(numbers, catalog)
    seeds = _seed_curves(shown, numbers) if spec.seeds else {}

    def panel(ax: Axes, task: str, curves: pd.DataFrame) -> None:
        _task_panel(ax, task, curves, seeds.get(task, ()), shown, styles)

    handles = _legend(shown, numbers, styles)
    pages = task_pages(shown, numbers, panel, handles, _marks(spec.seeds))
    return Drawing(pages, numbers, _final_table(numbers, styles), problems)


def task_pages(
    shown: Shown,
    numbers: pd.DataFrame,
    panel: Callable[[Axes, str, pd.DataFrame], None],
    handles: Sequence[Line2D],
    marks: Marks,
    *,
    scored: bool = True,
    hours: bool = False,
) -> list[Page]:
    """Draw a panel per task, in the order of the task table, on as few pages as possible.

    Args:
        shown: inputs of the figure.
        numbers: what is drawn, with the columns `task`, `metric` and `step`.
        panel: draws the given rows of a task.
        handles: entries of the legend.
        marks: meaning of lines and bands.
        scored: whether the captions are about scores with intervals; see `card_lines`.
        hours: whether the time axis has hours instead of env steps.
    """
    tasks = in_table_order(numbers["task"].unique().tolist())
    titles, by_task = task_titles(tasks), dict(list(numbers.groupby("task")))
    pages = []
    for page_tasks in pages_of(tasks, shown.spec.per_page):
        page, axes = canvas(len(page_tasks), shown.layout)
        for ax, task in zip(axes, page_tasks, strict=True):
            panel(ax, task, by_task[task])
            set_title(page, ax, titles[task])
        labels = [AXES[by_task[task]["metric"].iloc[0]][0] for task in page_tasks]
        drawn = numbers[numbers["task"].isin(page_tasks)]
        last, unit = (0, "hours") if hours else (int(drawn["step"].max()), "environment steps")
        # The returns of users' environments have any size.
        ranges = [
            task if label == _RETURN and not has_known_range(task) else label
            for task, label in zip(page_tasks, labels, strict=True)
        ]
        finish_axes(page, labels, last, unit=unit, ranges=ranges)
        finish_figure(page, handles, card_lines(shown, marks, drawn, scored=scored))
        pages.append(page)
    return pages


def pages_of(tasks: Sequence[str], most: int) -> list[Sequence[str]]:
    """Divide tasks among as few pages as possible, as evenly as possible."""
    even = ceil(len(tasks) / ceil(len(tasks) / most))
    per_page = min(most, _ROW * ceil(even / _ROW))
    return [tasks[start : start + per_page] for start in range(0, len(tasks), per_page)]


def _task_panel(
    ax: Axes,
    task: str,
    curves: pd.DataFrame,
    seeds: Sequence[tuple[np.ndarray, np.ndarray, Series]],
    shown: Shown,
    styles: dict[Series, LineStyle],
) -> None:
    """Draw the panel of one task.

    Args:
        ax: axes to draw on.
        task: name of the task.
        curves: mean curves of the task.
        seeds: steps, values and series of each run that is drawn.
        shown: inputs of the figure.
        styles: style of each series.
    """
    scale = AXES[curves["metric"].iloc[0]][1]
    for steps, values, series in seeds:
        ax.plot(steps, scale * values, color=styles[series].color, lw=0.5, alpha=0.45, zorder=2.5)
    if shown.spec.reference_scores:
        _draw_reference_scores(ax, scale * curves.iloc[0][REFERENCE_LINES], shown.catalog)
    draw_means(ax, curves.assign(**scale * curves[INTERVAL]), styles)
    runs = shown.curves.runs
    for row in runs.index[(runs["task"] == task) & (runs["state"] == "DIVERGED")]:
        curve, key = shown.curves.curves[row], tuple(map(str, runs.loc[row, SERIES]))
        end, color = curve.steps.argmax(), styles[key].color
        at = curve.steps[end], scale * curve.values[end]
        ax.plot(*at, color=color, marker="x", ms=4, zorder=5)


def _legend(shown: Shown, numbers: pd.DataFrame, styles: dict[Series, LineStyle]) -> list[Line2D]:
    """Return the entries of the series, the reference scores and the crosses of diverged runs."""
    drawn = [name for name in REFERENCE_LINES if name in numbers and numbers[name].notna().any()]
    references = [shown.catalog.reference_scores[name] for name in drawn]
    handles = [handle(style) for style in [*styles.values(), *references]]
    if shown.curves.runs["state"].eq("DIVERGED").any():
        handles.append(Line2D([], [], color="k", marker="x", ls="", ms=4, label="run diverged"))
    return handles


def _marks(seeds: bool) -> Marks:
    """Return what the lines and bands of learning curves are."""
    single = "; thin lines: single seeds" if seeds else ""
    return Marks(f"Lines: mean over seeds{single}", "bands: confidence interval of the mean")


def aggregate_curve(shown: Shown) -> Drawing:
    """Draw a panel per group: a statistic of the normalized scores with its 95 % interval."""
    statistic = shown.spec.statistics[0]
    groups = shown.groups()
    numbers, problems = group_curves(shown.curves, groups, shown.rule, shown.bootstrap, statistic)
    if not shown.spec.groups:
        what = "its returns have no score_range, or several; not averaged with other tasks"
        unscored = own_environments(shown.curves)[1]
        problems += tuple(Problem(task, None, what, "warning") for task in unscored)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    drawn = [group for group in groups if (numbers["group"] == group.name).any()]
    page, axes = canvas(len(drawn), shown.layout)
    for ax, group in zip(axes, drawn, strict=True):
        own = numbers[numbers["group"] == group.name]
        draw_means(ax, own.assign(**100 * own[INTERVAL]), styles)
        count = len(group.tasks)
        set_title(page, ax, f"{group.label}\n{count} task{'s' if count > 1 else ''}")
    name = STATISTIC_LABELS[statistic]
    finish_axes(page, [f"{name} score (%)"] * len(drawn), int(numbers["step"].max()))
    scores = "return / 10 or success in percent"
    if any(group.name == OWN for group in drawn):
        scores += "; own environments: success, or return in their score_range, in percent"
    marks = Marks(
        f"Lines: {name} over tasks and seeds of {scores}",
        "bands: its confidence interval",
    )
    handles = [handle(style) for style in styles.values()]
    finish_figure(page, handles, card_lines(shown, marks, numbers))
    labels = {group.name: group.label for group in drawn}
    return Drawing([page], numbers, _final_table(numbers, styles, labels), problems)


def in_table_order(tasks: Sequence[str]) -> list[str]:
    """Return the tasks in the order of the task table, unknown ones last."""
    order = {name: place for place, name in enumerate(TASKS)}
    return sorted(tasks, key=lambda task: (order.get(task, len(order)), task))


def _final_table(
    numbers: pd.DataFrame, styles: dict[Series, LineStyle], groups: dict[str, str] | None = None
) -> pd.DataFrame:
    """Return the last mean of each curve; normalized scores in percent, returns unscaled.

    A cell names its env steps if its curve ends well before another one of the row.
    """
    row = "task" if groups is None else "group"
    means = numbers.dropna(subset="mean")
    keys = [*SERIES, row]
    last = means.loc[means.groupby(keys)["step"].idxmax()]
    early = ~is_near(last["step"], last.groupby(row)["step"].transform("max"))
    last["note"] = np.where(early, [f" at {step:,} steps" for step in last["step"]], "")
    scaled = last["metric"].isin(["normalized_score", "episode_success"])
    factor = scaled.map({True: 100.0, False: 1.0})
    last = last.assign(**{name: last[name] * factor for name in ("mean", "low", "high")})
    if groups is None:
        last = last.assign(
            task=last["task"].map(task_titles(last["task"].unique())),
            unit=scaled.map({True: "success %", False: "return"}),
        )
        return short_table(last, ["task", "unit"], styles, 1.0)
    return short_table(last.assign(group=last["group"].map(groups)), ["group"], styles, 1.0)


def draw_means(ax: Axes, curves: pd.DataFrame, styles: dict[Series, LineStyle]) -> None:
    """Draw mean lines with their bands, the first series on top.

    Args:
        ax: axes to draw on.
        curves: columns `SERIES`, `step`, `mean`, `low`, `high`.
        styles: style of each series, in the order of the legend.
    """
    for rank, (series, style) in enumerate(styles.items()):
        curve = of_series(curves, series).dropna(subset="mean")
        if curve.empty:
            continue
        above = 4 - rank / len(styles)
        band(ax, curve["step"], curve, style, zorder=above)


def _seed_curves(
    shown: Shown, numbers: pd.DataFrame
) -> dict[str, list[tuple[np.ndarray, np.ndarray, Series]]]:
    """Return, by task, the resolved steps and values of every run shown, and its series."""
    last = numbers.groupby([*SERIES, "task"])["step"].max().to_dict()
    by_task: dict[str, list[tuple[np.ndarray, np.ndarray, Series]]] = {}
    keys = shown.curves.runs[[*SERIES, "task"]].astype(str).to_numpy()
    for (*series_key, task), curve in zip(keys, shown.curves.curves, strict=True):
        series = tuple(series_key)
        steps, values = shown.rule.resolved(curve.steps, curve.values)
        shown_steps = steps <= last.get((*series, task), -1)
        if shown_steps.any():
            by_task.setdefault(task, []).append((steps[shown_steps], values[shown_steps], series))
    return by_task


def _draw_reference_scores(ax: Axes, row: pd.Series, catalog: Catalog) -> None:
    """Draw horizontal lines at the task's reference scores."""
    for name in REFERENCE_LINES:
        if pd.notna(row[name]):
            style = catalog.reference_scores[name]
            dash(ax.axhline(row[name], color=style.color, lw=0.9, zorder=2), style)


LINE_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "learning_curves": learning_curves,
    "aggregate_curve": aggregate_curve,
}
