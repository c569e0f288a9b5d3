"""Curves of training metrics, such as gradient norms and losses."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.figures.line_plots import in_table_order
from analysis.figures.page import canvas, card_lines, finish_figure, step_axis
from analysis.figures.styles import Drawing, Shown, dash, handle, series_styles
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.records.train_csv import STEP, read_training
from tdmpc2.envs.tasks import TASKS

TRAINING_POINTS = 200
"""Maximum number of points of a training curve."""
_WIDE = 30
"""Quantities that span more than this factor have a logarithmic axis."""


def training_curves(shown: Shown) -> Drawing:
    """Draw a training metric, one panel per task and one line per seed.

    The figure's `quantity` is a column of `train.csv`, such as `grad_norm` (appendix G).
    """
    quantity = shown.spec.quantity
    numbers, problems = _training(shown, quantity)
    if numbers.empty:
        return Drawing((), numbers, problems=tuple(problems))
    styles = series_styles(numbers, shown.catalog)
    tasks = in_table_order(numbers["task"].unique().tolist())
    pages = []
    for start in range(0, len(tasks), shown.spec.per_page):
        page = tasks[start : start + shown.spec.per_page]
        figure, axes = canvas(len(page))
        for ax, task in zip(axes, page, strict=True):
            own = numbers[numbers["task"] == task]
            for key, run in own.groupby([*SERIES, "seed"]):
                style = styles[tuple(map(str, key[: len(SERIES)]))]
                (line,) = ax.plot(run[STEP], run["value"], color=style.color, lw=0.8, alpha=0.8)
                dash(line, style)
            low, high = own["value"].min(), own["value"].max()
            if 0 < _WIDE * low < high:
                ax.set_yscale("log")
            ax.set_title(TASKS[task].title if task in TASKS else task, loc="left")
            symbol = step_axis(ax, int(numbers[STEP].max()))
            ax.set_xlabel(f"environment steps ({symbol})")
        axes[0].set_ylabel(quantity.replace("_", " "))
        what = (
            f"Lines: {quantity.replace('_', ' ')} of single seeds, averaged over equal intervals."
        )
        handles = [handle(style) for style in styles.values()]
        finish_figure(figure, handles, card_lines(shown, what, scored=False))
        pages.append(figure)
    return Drawing(pages, numbers, problems=tuple(problems))


def _training(shown: Shown, quantity: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the quantity of every run directory that recorded it, one point per row."""
    problems: list[Problem] = []
    tables = []
    runs = shown.records.runs
    for run in runs[runs["source"] == RUNS_SOURCE].to_dict("records"):
        table = read_training(run["directory"], problems, TRAINING_POINTS)
        if quantity in table:
            names = {name: run[name] for name in (*SERIES, "task", "seed")}
            values = {STEP: table[STEP], "value": table[quantity]}
            tables.append(pd.DataFrame({**values, **names}).dropna(subset="value"))
    columns = [*SERIES, "task", "seed", STEP, "value"]
    filled = [table for table in tables if len(table)]
    combined = (
        pd.concat(filled, ignore_index=True)[columns] if filled else pd.DataFrame(columns=columns)
    )
    return combined, problems


LEARNING_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "training_curves": training_curves,
}
