"""Distribution of the final scores of single runs over the tasks of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns

from analysis.figures.captions import Marks, card_lines
from analysis.figures.page import canvas, finish_figure, set_title
from analysis.figures.stat_plots import WIDE_PANEL, group_title, row_name
from analysis.figures.styles import Drawing, Shown, series_styles
from analysis.records.load import SERIES
from analysis.records.problems import Problem
from analysis.stats.selection import horizon_scores, select

_ROW = 0.3
_POINT_SIZE = 1.6


def score_distribution(shown: Shown) -> Drawing:
    """Draw a panel per group and a row per series: the score of every run, and their quartiles."""
    numbers, problems = _scores_of_runs(shown)
    if numbers.empty:
        return Drawing((), numbers, problems=problems)
    styles = series_styles(numbers, shown.catalog)
    labels = [style.label for style in styles.values()]
    keys = [tuple(map(str, row)) for row in numbers[SERIES].to_numpy()]
    named = numbers.assign(
        label=[styles[key].label for key in keys], percent=100 * numbers["value"]
    )
    palette = {style.label: style.color for style in styles.values()}
    groups = [g for g in shown.groups() if (numbers["group"] == g.name).any()]
    height = 0.4 + _ROW * len(labels)
    page, axes = canvas(len(groups), shown.layout, least_width=WIDE_PANEL, height=height)
    for index, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        rows: dict[str, Any] = {
            **{"data": named[named["group"] == group.name], "x": "percent", "y": "label"},
            **{"order": labels, "hue": "label", "hue_order": labels, "palette": palette},
            **{"ax": ax, "legend": False},
        }
        box = {"width": 0.75, "showfliers": False, "whis": (5, 95), "linewidth": 0.8}
        sns.boxplot(**rows, **box, boxprops={"alpha": 0.3}, medianprops={"color": "#222222"})
        with _global_generator(seed=index):
            sns.stripplot(**rows, size=_POINT_SIZE, alpha=0.5, jitter=0.3)
        ax.set(xlabel="", ylabel="", xlim=(-4, 104), xticks=range(0, 101, 25))
        set_title(page, ax, group_title(group, "\n"))
        ax.set_yticks(range(len(labels)), list(map(row_name, styles.values())))
        ax.tick_params(labelleft=index % page.columns == 0)
        ax.tick_params(labelbottom=index + page.columns >= len(groups))
        ax.grid(visible=False, axis="y")
    page.labels = ("score (%)", "")
    marks = Marks(
        "Points: score of single runs at the env steps in the title or the task's budget if that "
        "is less; boxes: quartiles; whiskers: 5th to 95th percentile"
    )
    finish_figure(page, (), card_lines(shown, marks, numbers, scored=False))
    return Drawing([page], numbers, problems=problems)


@contextmanager
def _global_generator(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, by which seaborn separates points, and restore it."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _scores_of_runs(shown: Shown) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the score of every run at the horizon of its group, in [0, 1], and the problems."""
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for group in shown.groups():
        for series, chosen in select(shown.curves, group.tasks, group.name, problems):
            values, reasons = horizon_scores(shown.curves, chosen, group, shown.rule)
            problems += [Problem(group.name, None, reason, "warning") for reason in reasons]
            seeds = shown.curves.runs["seed"].to_numpy()[chosen.rows]
            for task, seed, value in zip(chosen.tasks, seeds, values[:, 0], strict=True):
                rows.append((*series, group.name, task, seed, value))
    table = pd.DataFrame(rows, columns=[*SERIES, "group", "task", "seed", "value"])
    return table.dropna(subset="value"), tuple(problems)


DISTRIBUTION_PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    "score_distribution": score_distribution,
}
