"""Room of what is plotted beside scores: gradient norms and losses, and score against size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.aggregate import group_scores
from analysis.drawing import Drawing, Shown, dash, handle, series_styles
from analysis.layout import canvas, card_lines, finish_figure, step_axis
from analysis.line_plots import in_table_order
from analysis.problems import Problem
from analysis.records import RUNS_SOURCE, SERIES
from analysis.selection import Series
from analysis.training_curves import STEP, read_training
from tdmpc2.envs.tasks import TASKS

TRAINING_POINTS = 200
"""Points of a drawn training curve; more would not be seen."""
QUOTED = "quoted"
_WIDE = 30
"""Quantities that span more than this factor have a logarithmic axis."""


def training_curves(shown: Shown) -> Drawing:
    """One panel per task: what runs noted while they learnt, every seed by itself.

    The figure's `quantity` is a column of `train.csv`, such as `grad_norm` (appendix G).
    """
    quantity = shown.spec.quantity
    numbers, problems = _training(shown, quantity)
    if numbers.empty:
        return Drawing((), numbers, problems=tuple(problems))
    styles = series_styles(numbers, shown.catalogue)
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
        what = f"Lines: {quantity.replace('_', ' ')} of single seeds, averaged over equal shares."
        handles = [handle(style) for style in styles.values()]
        finish_figure(figure, handles, card_lines(shown, what, scored=False))
        pages.append(figure)
    return Drawing(pages, numbers, problems=tuple(problems))


def scaling(shown: Shown) -> Drawing:
    """Score of multi-task agents against their parameters, with a line fitted to the logarithm.

    The quoted numbers (`dataset`, `parameters`, `gpu_days`, `score`) are drawn, and beside them
    the runs that state their number of parameters.
    """
    reference = pd.DataFrame(shown.spec.quoted)
    reference = reference.assign(source=QUOTED, low=np.nan, high=np.nan)
    ours, problems = _sizes(shown)
    numbers = pd.concat([reference, ours], ignore_index=True) if len(ours) else reference
    numbers = numbers.sort_values(["source", "dataset", "parameters"], ignore_index=True)
    figure, (ax,) = canvas(1, panel=(5.2, 2.6))
    handles, rows = [], []
    looks = {QUOTED: ("#595959", "o"), RUNS_SOURCE: ("#0072B2", "s")}
    for (source, dataset), own in numbers.groupby(["source", "dataset"]):
        color, marker = looks[str(source)]
        label = f"{dataset}, {QUOTED if source == QUOTED else 'run here'}"
        ends = np.nan_to_num([own["score"] - own["low"], own["high"] - own["score"]])
        ax.errorbar(own["parameters"], own["score"], ends, color=color, ls="", lw=0.9, capsize=2)
        ax.plot(own["parameters"], own["score"], color=color, marker=marker, ms=4, ls="")
        if len(own) > 1:
            slope, start = np.polyfit(np.log10(own["parameters"]), own["score"], 1)
            x = np.array([own["parameters"].min(), own["parameters"].max()])
            ax.plot(x, start + slope * np.log10(x), color=color, lw=1, ls="--")
            label += f": {slope:+.1f} points for ten times the parameters"
        handles.append(Line2D([], [], color=color, marker=marker, ms=4, lw=0, label=label))
        rows += [(label.split(":")[0], row) for row in own.to_dict("records")]
    ax.set_xscale("log")
    ax.set_xlabel("parameters")
    ax.set_ylabel("normalised score (%)")
    what = (
        "Marks: mean over tasks; dashed lines: least squares in the logarithm of the parameters. "
        f"Quoted: {shown.spec.quoted_from}."
    )
    finish_figure(figure, handles, [what])
    table = pd.DataFrame(
        {
            "agents": [label for label, _ in rows],
            "parameters": [f"{row['parameters']:,.0f}" for _, row in rows],
            "GPU days": [f"{row['gpu_days']:g}" if row["gpu_days"] > 0 else "" for _, row in rows],
            "score": [f"{row['score']:.1f}" for _, row in rows],
        }
    )
    return Drawing([figure], numbers, table, tuple(problems))


def _training(shown: Shown, quantity: str) -> tuple[pd.DataFrame, list[Problem]]:
    """The quantity of every run directory that noted it, one point a row."""
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
    found = [table for table in tables if len(table)]
    whole = pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
    return whole, problems


def _sizes(shown: Shown) -> tuple[pd.DataFrame, list[Problem]]:
    """Score and parameters of every multi-task series that states them."""
    runs = shown.curves.runs
    known = runs[(runs["dataset"] != "") & runs["num_parameters"].notna()]
    if known.empty:
        return pd.DataFrame(), []
    parameters: dict[Series, float] = {
        tuple(map(str, key)): float(own["num_parameters"].iloc[0])
        for key, own in known.groupby(SERIES)
    }
    scores, problems = group_scores(
        shown.curves, shown.groups(), shown.rule, shown.bootstrap, statistics=("mean",)
    )
    rows = [
        {
            **{"source": RUNS_SOURCE, "dataset": row["dataset"], "gpu_days": np.nan},
            "parameters": parameters[tuple(str(row[name]) for name in SERIES)],
            **{"score": 100 * row["value"], "low": 100 * row["low"], "high": 100 * row["high"]},
        }
        for row in scores.to_dict("records")
        if tuple(str(row[name]) for name in SERIES) in parameters
    ]
    return pd.DataFrame(rows), list(problems)


LEARNING_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "training_curves": training_curves,
    "scaling": scaling,
}
