"""Room of the table of figure kinds: what `plot` in `paper_figures/figures.toml` may name.

Each is a function from what a figure shows to a drawing and its numbers. Colors, labels and
order come from the catalog, the look from `paper_figures/paper.mplstyle`.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.figures.figure_specs import Catalog, read_catalog
from analysis.figures.learning_plots import LEARNING_PLOTS
from analysis.figures.line_plots import LINE_PLOTS
from analysis.figures.multitask_plots import MULTITASK_PLOTS
from analysis.figures.scaling_plots import SCALING_PLOTS
from analysis.figures.stat_plots import STAT_PLOTS
from analysis.figures.styles import Drawing, Shown
from tdmpc2.common.system.paths import project_root


def task_embeddings(shown: Shown) -> Drawing:
    """Task embeddings of the agents by t-SNE, a panel each."""
    if not shown.embeddings:
        return Drawing((), pd.DataFrame())
    # Here, since scikit-learn and torch take seconds to import.
    from analysis.figures.embedding_plots import embedding_figure

    return embedding_figure(shown.embeddings)


PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    **LINE_PLOTS,
    **STAT_PLOTS,
    **LEARNING_PLOTS,
    **MULTITASK_PLOTS,
    **SCALING_PLOTS,
    "task_embeddings": task_embeddings,
}
"""The functions a figure of the catalog may name."""


def shipped_catalog() -> Catalog:
    """That of `paper_figures/figures.toml`."""
    return read_catalog(project_root() / "paper_figures" / "figures.toml", PLOTS)
