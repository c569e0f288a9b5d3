"""Room of the table of figure kinds: what `plot` in `paper_figures/figures.toml` may name.

Each is a function from what a figure shows to a drawing and its numbers. Colours, labels and
order come from the catalogue, the look from `paper_figures/paper.mplstyle`.
"""

from __future__ import annotations

from collections.abc import Callable

from analysis.drawing import Drawing, Shown
from analysis.learning_plots import LEARNING_PLOTS
from analysis.line_plots import LINE_PLOTS
from analysis.stat_plots import STAT_PLOTS

PLOTS: dict[str, Callable[[Shown], Drawing]] = {**LINE_PLOTS, **STAT_PLOTS, **LEARNING_PLOTS}
"""The functions a figure of the catalogue may name."""
