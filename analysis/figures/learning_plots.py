"""Curves of training metrics, and of scores against wall time, from run directories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.figures.captions import Marks, card_lines
from analysis.figures.figure_specs import LineStyle
from analysis.figures.line_plots import AXES, draw_means, in_table_order, pages_of, task_pages
from analysis.figures.page import Page, canvas, finish_axes, finish_figure, set_title
from analysis.figures.styles import Drawing, Shown, dash, handle, marker_of, series_styles
from analysis.records.load import SERIES
from analysis.records.multitask_costs import median_rate
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.records.train_csv import STEP, read_training
from analysis.stats.selection import INTERVAL, Series
from analysis.stats.task_curves import task_curves
from analysis.stats.task_titles import task_titles

TRAINING_POINTS = 200
"""Maximum number of points of a training curve."""
_WIDE = 30
"""Quantities that span more than this factor have a logarithmic axis."""
_HOUR = 3600


def training_curves(shown: Shown) -> Drawing:
    """Draw training metrics: pages per metric, a panel per task and a line per seed.

    The figure's `quantities` are columns of `train.csv`, such as `grad_norm` (appendix G).
    """
    numbers, problems = _training(shown)
    if numbers.empty:
        return Drawing((), numbers, problems=tuple(problems))
    styles = series_styles(numbers, shown.catalog)
    pages = []
    for quantity, own in numbers.groupby("quantity", sort=False):
        tasks = in_table_order(own["task"].unique().tolist())
        for page_tasks in pages_of(tasks, shown.spec.per_page):
            pages.append(_training_page(shown, str(quantity), page_tasks, own, styles))
    return Drawing(pages, numbers, problems=tuple(problems))


def _training_page(
    shown: Shown,
    quantity: str,
    tasks: Sequence[str],
    numbers: pd.DataFrame,
    styles: dict[Series, LineStyle],
) -> Page:
    """Draw one metric of some tasks."""
    page, axes = canvas(len(tasks), shown.layout)
    titles = task_titles(numbers["task"].unique())
    for ax, task in zip(axes, tasks, strict=True):
        own = numbers[numbers["task"] == task]
        for key, run in own.groupby([*SERIES, "seed"]):
            style = styles[tuple(map(str, key[: len(SERIES)]))]
            look = {**marker_of(style), "lw": 0.7, "alpha": 0.8}
            (line,) = ax.plot(run[STEP], run["value"], color=style.color, **look)
            dash(line, style)
        set_title(page, ax, titles[task])
    name = quantity.replace("_", " ")
    finish_axes(page, [name] * len(tasks), int(numbers[STEP].max()))
    low, high = numbers["value"].min(), numbers["value"].max()
    if 0 < _WIDE * low < high:
        for ax in axes:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_text(value)))
            ax.set_ylim(low / 1.5, high * 1.5)
    marks = Marks(f"Lines: {name} of single seeds, averaged over equal intervals")
    on_page = numbers[numbers["task"].isin(tasks)]
    drawn = {tuple(map(str, key)) for key in on_page[SERIES].drop_duplicates().to_numpy()}
    handles = [handle(style) for series, style in styles.items() if series in drawn]
    finish_figure(page, handles, card_lines(shown, marks, on_page, scored=False))
    return page


def power_text(value: float) -> str:
    """Return a power of ten as `10⁻³`, and another number as it is."""
    exponent = round(math.log10(value))
    if not math.isclose(value, 10.0**exponent):
        return f"{value:g}"
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _training(shown: Shown) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the quantities of every run directory that recorded them, one point per row."""
    problems: list[Problem] = []
    columns = [*SERIES, "task", "seed", STEP, "value", "quantity"]
    tables = [pd.DataFrame(columns=columns)]
    runs = shown.records.runs
    for run in runs[runs["source"] == RUNS_SOURCE].to_dict("records"):
        table = read_training(run["directory"], problems, TRAINING_POINTS)
        names = {name: run[name] for name in (*SERIES, "task", "seed")}
        for quantity in shown.spec.quantities:
            if quantity in table:
                values = {STEP: table[STEP], "value": table[quantity], "quantity": quantity}
                tables.append(pd.DataFrame({**values, **names}).dropna(subset="value"))
    filled = [table for table in tables if len(table)] or tables
    combined = pd.concat(filled, ignore_index=True)[columns]
    order = {quantity: place for place, quantity in enumerate(shown.spec.quantities)}
    places = combined["quantity"].map(order)
    return combined.iloc[places.argsort(kind="stable")], problems


def wall_time(shown: Shown) -> Drawing:
    """Draw the mean score over seeds against hours of training, a panel per task (appendix H).

    The hours of a step follow from the median speed in the `timing.csv` of the series' runs.
    """
    numbers, problems = task_curves(shown.curves, shown.rule, shown.bootstrap)
    speeds, more = _speeds(shown)
    keys = pd.MultiIndex.from_frame(numbers[[*SERIES, "task"]].astype(str))
    numbers = numbers.assign(hours=numbers["step"] / speeds.reindex(keys).to_numpy() / _HOUR)
    numbers = numbers.dropna(subset="hours")
    if numbers.empty:
        return Drawing((), numbers, problems=(*problems, *more))
    styles = series_styles(numbers, shown.catalog)

    def panel(ax: Axes, task: str, own: pd.DataFrame) -> None:
        scaled = AXES[own["metric"].iloc[0]][1] * own[INTERVAL]
        draw_means(ax, own.assign(**scaled, step=own["hours"]), styles)

    marks = Marks(
        "Lines: mean over seeds",
        "bands: confidence interval of the mean",
        "Hours: env steps divided by the median speed of the runs, evaluations included, on "
        "the hardware of each run.",
    )
    handles = [handle(style) for style in styles.values()]
    pages = task_pages(shown, numbers, panel, handles, marks, hours=True)
    return Drawing(pages, numbers, problems=(*problems, *more))


def _speeds(shown: Shown) -> tuple[pd.Series, list[Problem]]:
    """Return the env steps per second of each series and task, the median over its seeds."""
    problems: list[Problem] = []
    runs = shown.records.runs
    runs = runs[runs["source"] == RUNS_SOURCE]
    files = [Path(directory) / "timing.csv" for directory in runs["directory"]]
    rates = [
        median_rate(path, problems, "env_steps_per_second") if path.exists() else None
        for path in files
    ]
    table = runs[[*SERIES, "task"]].astype(str).assign(rate=pd.Series(rates, runs.index, float))
    return table.groupby([*SERIES, "task"])["rate"].median(), problems


LEARNING_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "training_curves": training_curves,
    "wall_time": wall_time,
}
