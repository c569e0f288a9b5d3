"""Room of the figures of effects: a panel per factor, a base and its variants as curves or bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.figure_specs import LineStyle
from analysis.figures.page import canvas, card_lines, finish_axes, finish_figure
from analysis.figures.styles import Shown, band, bar, handle
from analysis.stats.ablation_effects import POINTS, Effect, Sample
from analysis.stats.bootstrap import interval
from analysis.stats.selection import intervals

_PANEL = (2.3, 2.0)
_COLUMNS = 3
_SMALL = 5.8
_LEAST_BARS = 4
"""With fewer bars in a panel, they keep the width that so many have."""
_SCORE = "score (%)"


@dataclass(frozen=True)
class Panel:
    """One factor, on the tasks that its effects share.

    Attributes:
        title: the factor.
        effects: of its variants, by label; all against the same base and on the same tasks.
        rows: of `ScoreCurves.runs`: of the base (under an empty label) and of each variant.
    """

    title: str
    effects: dict[str, Effect]
    rows: dict[str, np.ndarray]

    @property
    def samples(self) -> dict[str, Sample]:
        """Scores by label, those of the base under an empty one."""
        own = {label: effect.variant for label, effect in self.effects.items()}
        return {"": self.any_effect.base, **own}

    @property
    def any_effect(self) -> Effect:
        """One of them, for what all share: base, tasks and steps."""
        return next(iter(self.effects.values()))


def effect_curves(panels: Sequence[Panel], shown: Shown, base: str) -> tuple[Figure, pd.DataFrame]:
    """Mean score over tasks and seeds against env steps, with 95 % intervals.

    Args:
        panels: at least one.
        shown: all runs that are drawn.
        base: label of what the variants are compared with.
    """
    figure, axes = canvas(len(panels), panel=_PANEL, columns=min(len(panels), _COLUMNS))
    tables = []
    for ax, panel in zip(axes, panels, strict=True):
        styles = _styles(panel, shown, base)
        for label, rows in reversed(panel.rows.items()):
            table = _curve(panel, label, rows, shown)
            band(ax, table["env_step"], table, styles[label], zorder=3 if label else 4)
            tables.append(table)
        count = len(panel.any_effect.tasks)
        ax.set_title(f"{panel.title} ({count} task{'s' * (count > 1)})", loc="left")
        ax.legend(
            handles=[handle(style) for style in styles.values()],
            loc="lower right",
            fontsize=_SMALL,
            framealpha=0.7,
        )
    numbers = pd.concat(tables, ignore_index=True)
    finish_axes(axes, [_SCORE] * len(panels), int(numbers["env_step"].max()), _COLUMNS)
    what = (
        "Lines: mean over tasks and seeds of return / 10 or success in per cent; bands: its 95 % "
        "interval."
    )
    finish_figure(figure, (), card_lines(shown, what))
    return figure, numbers


def effect_bars(panels: Sequence[Panel], shown: Shown, base: str) -> Figure:
    """Mean final score over tasks and seeds, with 95 % intervals; arguments as `effect_curves`."""
    figure, axes = canvas(len(panels), panel=_PANEL, columns=min(len(panels), _COLUMNS))
    for index, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        styles = _styles(panel, shown, base)
        for place, (label, sample) in enumerate(panel.samples.items()):
            own = interval("mean", sample.final[:, None], sample.strata, shown.bootstrap)
            bar(ax, place, styles[label], *own.stacked()[0])
        ax.set_title(panel.title, loc="left")
        names = [style.label for style in styles.values()]
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=_SMALL)
        spare = max(0, _LEAST_BARS - len(names)) / 2
        ax.set_xlim(-0.6 - spare, len(names) - 0.4 + spare)
        ax.set_ylim(0, 109)
        ax.grid(visible=False, axis="x")
        if index % _COLUMNS == 0:
            ax.set_ylabel(_SCORE)
    what = (
        "Bars: mean over tasks and seeds of the last compared score; whiskers: its 95 % interval."
    )
    finish_figure(figure, (), card_lines(shown, what))
    return figure


def _styles(panel: Panel, shown: Shown, base: str) -> dict[str, LineStyle]:
    """A style per label: the base in its method's color, the variants of a panel in others."""
    reserve = shown.catalog.reserve
    styles = {"": LineStyle(base, shown.catalog.methods["tdmpc2"].color)}
    for place, label in enumerate(panel.effects):
        dashes = (3.0, 1.0) if place >= len(reserve) else ()
        styles[label] = LineStyle(label, reserve[place % len(reserve)], dashes)
    return styles


def _curve(panel: Panel, label: str, rows: np.ndarray, shown: Shown) -> pd.DataFrame:
    """Columns factor, variant, env_step, mean, low, high."""
    effect = panel.any_effect
    runs = shown.curves.runs.loc[rows]
    rows = runs[runs["task"].isin(effect.tasks)].sort_values(["task", "seed"]).index.to_numpy()
    strata = np.unique(shown.curves.runs.loc[rows, "task"], return_inverse=True)[1]
    steps = shown.curves.common_grid(rows, min(effect.steps))
    values = shown.curves.values(rows, steps, shown.rule, normalized=True)
    bounds = POINTS * intervals("mean", values, strata, shown.rule, shown.bootstrap)
    table = pd.DataFrame(bounds, columns=["mean", "low", "high"])
    table.insert(0, "factor", panel.title)
    table.insert(1, "variant", label or "base")
    table.insert(2, "env_step", steps)
    return table.dropna(subset="mean")
