"""Figures of ablation effects: one panel per factor with a base and its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.captions import Marks, card_lines
from analysis.figures.figure_specs import LineStyle
from analysis.figures.legends import fit_legend
from analysis.figures.page import (
    Page,
    canvas,
    finish_axes,
    finish_figure,
    panel_grid,
    set_title,
)
from analysis.figures.stat_plots import set_bar_range
from analysis.figures.styles import Shown, band, bar, handle
from analysis.records.load import SERIES
from analysis.stats.ablation_effects import POINTS, Effect, Sample
from analysis.stats.coverage import Coverage, coverage_of, simulated, studies_of
from analysis.stats.selection import intervals, score_limits

_WIDTH, _HEIGHT = 1.8, 1.7
"""Least width and height of a panel, in inches."""
_SMALL = 7
_LEAST_BARS = 4
"""Panels with fewer bars reserve the width of this many."""
_AXIS, _BAR = 0.5, 0.24
"""Width of the labels of an axis, and least width of a bar, in inches."""
_TITLE, _SPACE = 0.4, 0.06
"""Height of title and ticks of a panel, and space below its legend, in inches."""
_LEGEND = 0.85
"""Height of the legend of a panel, in that of the page's legend."""
_SCORE = "score (%)"


@dataclass(frozen=True)
class Panel:
    """One factor, on the tasks that its effects share.

    Attributes:
        title: name of the factor.
        effects: effect of each variant by label, all with the same base and the same tasks.
        rows: rows of `ScoreCurves.runs` by label; the label of the base is empty.
    """

    title: str
    effects: dict[str, Effect]
    rows: dict[str, np.ndarray]

    @property
    def samples(self) -> dict[str, Sample]:
        """Scores by label; the label of the base is empty."""
        own = {label: effect.variant for label, effect in self.effects.items()}
        return {"": self.any_effect.base, **own}

    @property
    def any_effect(self) -> Effect:
        """One of the effects, for what all share: base, tasks and steps."""
        return next(iter(self.effects.values()))


def effect_curves(panels: Sequence[Panel], shown: Shown, base: str) -> tuple[Page, pd.DataFrame]:
    """Draw the mean score over tasks and seeds against env steps, with 95 % intervals.

    Args:
        panels: at least one panel.
        shown: inputs of the figure.
        base: label of the base.
    """
    entries = [list(map(handle, _styles(panel, shown, base).values())) for panel in panels]
    _, across = panel_grid(len(panels), shown.layout, _WIDTH)
    wide = shown.layout.width / across - _AXIS
    sizes = [fit_legend(own, wide) for own in entries]
    space = _LEGEND * max(height for height, _ in sizes) + _SPACE
    page, axes = canvas(len(panels), shown.layout, least_width=_WIDTH, height=_HEIGHT + space)
    tables = []
    for ax, panel, own, (_, columns) in zip(axes, panels, entries, sizes, strict=True):
        styles = _styles(panel, shown, base)
        for label in reversed(panel.rows):
            table = _curve(panel, label, shown)
            band(ax, table["env_step"], table, styles[label], zorder=3 if label else 4)
            tables.append(table)
        set_title(page, ax, _title(panel))
        ax.legend(handles=own, loc="upper left", ncols=columns, fontsize=_SMALL, borderpad=0.2)
    numbers = pd.concat(tables, ignore_index=True)
    finish_axes(page, [_SCORE] * len(panels), int(numbers["env_step"].max()))
    for ax in axes:
        _reserve(ax, space / (_HEIGHT - _TITLE))
    marks = Marks(
        "Lines: mean over tasks and seeds of return / 10 or success in percent",
        "bands: its confidence interval",
    )
    finish_figure(page, (), card_lines(shown, marks, found=_coverages(panels, shown)))
    return page, numbers


def effect_bars(panels: Sequence[Panel], shown: Shown, base: str) -> Page:
    """Draw the mean final score over tasks and seeds as bars, with 95 % intervals.

    Args:
        panels: at least one panel.
        shown: inputs of the figure.
        base: label of the base.
    """
    most = max(len(panel.samples) for panel in panels)
    width = min(max(_WIDTH, _AXIS + most * _BAR), shown.layout.width)
    page, axes = canvas(len(panels), shown.layout, least_width=width, height=_HEIGHT)
    for index, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        styles = _styles(panel, shown, base)
        for place, (label, sample) in enumerate(panel.samples.items()):
            low, high = score_limits(_runs_of(panel, label, shown))
            limits = (POINTS * low, POINTS * high)
            own = intervals("mean", *sample.runs, shown.rule, limits)
            bar(ax, place, styles[label], *own[0])
        set_title(page, ax, _title(panel))
        names = [style.label for style in styles.values()]
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=_SMALL)
        padding = max(0, _LEAST_BARS - len(names)) / 2
        ax.set_xlim(-0.6 - padding, len(names) - 0.4 + padding)
        set_bar_range(ax)
        ax.grid(visible=False, axis="x")
        ax.tick_params(labelleft=index % page.columns == 0)
    page.labels = ("", _SCORE)
    marks = Marks(
        "Bars: mean over tasks and seeds of return / 10 or success in percent, at the last "
        "compared step",
        "whiskers: its confidence interval",
    )
    finish_figure(page, (), card_lines(shown, marks, found=bar_coverages(panels, shown)))
    return page


def _reserve(ax: Axes, share: float) -> None:
    """Extend the value axis upwards by a share of its range, without ticks, for a legend."""
    bottom, top = ax.get_ylim()
    ax.set_yticks([tick for tick in ax.get_yticks() if bottom <= tick <= top])
    ax.set_ylim(bottom, top + share * (top - bottom))


def _title(panel: Panel) -> str:
    """Return the factor of a panel, and the number of tasks."""
    count = len(panel.any_effect.tasks)
    return f"{panel.title} ({count} task{'s' * (count > 1)})"


def _coverages(panels: Sequence[Panel], shown: Shown) -> list[Coverage]:
    """Return the measured coverage of the intervals of the means, of each set of tasks once."""
    found: dict[tuple[Any, ...], Coverage] = {}
    for panel in panels:
        tasks, until = panel.any_effect.tasks, min(panel.any_effect.steps)
        for label in panel.rows:
            own = _runs_of(panel, label, shown)
            sizes = own.groupby("task")["seed"].count()
            strata = np.unique(own["task"], return_inverse=True)[1]
            chosen = (own.index.to_numpy(), strata)
            share = coverage_of("mean", shown.curves, chosen, until, shown.bootstrap)
            one = _of_mean(panel, own[SERIES].iloc[0], list(sizes), share)
            if np.isfinite(share):
                found.setdefault((one.series, tasks, until), one)
    return list(found.values())


def bar_coverages(panels: Sequence[Panel], shown: Shown) -> list[Coverage]:
    """Return the measured coverage of the intervals of the bars, of each sample once.

    Bars have only runs with a score at the compared step of their task.

    Args:
        panels: the panels.
        shown: inputs of the figure.
    """
    found: dict[tuple[Any, ...], Coverage] = {}
    for panel in panels:
        for label, sample in panel.samples.items():
            if max(sample.sizes) < 2 or not all(sample.pools):
                continue
            share = simulated("mean", sample.pools, sample.sizes, studies_of(shown.bootstrap))
            run = shown.curves.runs.loc[panel.rows[label][0], SERIES]
            one = _of_mean(panel, run, sample.sizes, share)
            if np.isfinite(share):
                found.setdefault((one.series, panel.any_effect.tasks, sample.pools), one)
    return list(found.values())


def _of_mean(panel: Panel, series: pd.Series, sizes: Sequence[int], share: float) -> Coverage:
    """Return the coverage of the interval of a mean over the tasks of a panel.

    Args:
        panel: the panel.
        series: the columns `SERIES` of one of its runs.
        sizes: number of seeds per task.
        share: the measured coverage.
    """
    seeds, tasks = (int(min(sizes)), int(max(sizes))), len(panel.any_effect.tasks)
    return Coverage(tuple(map(str, series)), panel.title, tasks, seeds, "mean", share)


def _styles(panel: Panel, shown: Shown, base: str) -> dict[str, LineStyle]:
    """Return a style per label: the base in its method's style, the variants in reserve styles."""
    styles = {"": replace(shown.catalog.methods["tdmpc2"], label=base)}
    for place, label in enumerate(panel.effects):
        styles[label] = replace(shown.catalog.spare(place), label=label)
    return styles


def _runs_of(panel: Panel, label: str, shown: Shown) -> pd.DataFrame:
    """Return the runs of a label on the tasks of the panel, sorted by task and seed."""
    runs = shown.curves.runs.loc[panel.rows[label]]
    return runs[runs["task"].isin(panel.any_effect.tasks)].sort_values(["task", "seed"])


def _curve(panel: Panel, label: str, shown: Shown) -> pd.DataFrame:
    """Return the columns factor, variant, env_step, mean, low, high."""
    runs = _runs_of(panel, label, shown)
    rows = runs.index.to_numpy()
    strata = np.unique(runs["task"], return_inverse=True)[1]
    steps = shown.curves.common_grid(rows, min(panel.any_effect.steps))
    values = shown.curves.values(rows, steps, shown.rule, normalized=True)
    bounds = POINTS * intervals("mean", values, strata, shown.rule, score_limits(runs))
    table = pd.DataFrame(bounds, columns=["mean", "low", "high"])
    table.insert(0, "factor", panel.title)
    table.insert(1, "variant", label or "base")
    table.insert(2, "env_step", steps)
    return table.dropna(subset="mean")
