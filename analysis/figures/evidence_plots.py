"""Own runs and released seeds of the same method and task, seed by seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.captions import Marks
from analysis.figures.figure_specs import LineStyle
from analysis.figures.line_plots import AXES, task_pages
from analysis.figures.styles import Drawing, Shown, series_styles
from analysis.records.load import SERIES
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats.selection import Series

_COLUMNS = [*SERIES, "task", "metric", "seed", "step", "value"]


def own_and_released(shown: Shown) -> Drawing:
    """Draw a panel per task with each own run, and the released seeds of the same methods.

    Released evaluations are far apart, so that they are points without lines. The last ones shown
    are the first that our runs of that method and task have not passed. Methods without own runs of
    a task are not shown there.
    """
    numbers = _curves(shown)
    if numbers.empty:
        return Drawing((), numbers)
    styles = series_styles(numbers, shown.catalog)

    def panel(ax: Axes, task: str, own: pd.DataFrame) -> None:
        _panel(ax, own, AXES[own["metric"].iloc[0]][1], styles)

    handles = [_handle(series, style) for series, style in styles.items()]
    marks = Marks("Lines: our seeds; open markers: released seeds")
    return Drawing(task_pages(shown, numbers, panel, handles, marks, scored=False), numbers)


def _panel(ax: Axes, curves: pd.DataFrame, scale: float, styles: dict[Series, LineStyle]) -> None:
    """Draw the runs of one task, our own above the released seeds."""
    for (*key, _), run in curves.groupby([*SERIES, "seed"]):
        series = tuple(map(str, key))
        ax.plot(run["step"], scale * run["value"], **_look(series, styles[series]))


def _handle(series: Series, style: LineStyle) -> Line2D:
    """Return the entry of a series in the legend."""
    return Line2D([], [], label=style.label, **_look(series, style))


def _look(series: Series, style: LineStyle) -> dict[str, Any]:
    """Return the arguments of a line (own runs) or of open markers (released seeds)."""
    look = {"color": style.color, "marker": style.marker}
    if series[0] == RUNS_SOURCE:
        return look | {"lw": 1.2, "ms": 3.5, "zorder": 3}
    return look | {"ls": "", "ms": 5, "mfc": "none", "mew": 0.9, "zorder": 4}


def _curves(shown: Shown) -> pd.DataFrame:
    """Return the points of all runs that are drawn, columns `_COLUMNS`."""
    runs = shown.curves.runs
    parts = []
    for _, same in runs.groupby(["method", "obs", "task"]):
        ours = same.index[same["source"] == RUNS_SOURCE]
        theirs = same.index[same["source"] == PUBLISHED]
        if not len(ours) or not len(theirs):
            continue
        reached = shown.curves.last_steps[ours].max()
        grid = shown.curves.common_grid(theirs.to_numpy())
        until = grid[min(int(np.searchsorted(grid, reached)), len(grid) - 1)]
        for row in [*ours, *theirs]:
            curve = shown.curves.curves[row]
            steps, values = shown.rule.resolved(curve.steps, curve.values)
            kept = steps <= max(until, reached)
            fixed = runs.loc[row, [*SERIES, "task", "metric", "seed"]].to_dict()
            parts.append(pd.DataFrame({**fixed, "step": steps[kept], "value": values[kept]}))
    return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else pd.DataFrame()


EVIDENCE_PLOTS: dict[str, Callable[[Shown], Drawing]] = {"own_and_released": own_and_released}
