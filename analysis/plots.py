"""Room of the table of figure kinds: what `plot` in `paper_figures/figures.toml` may name.

Each is a function from what a figure shows to a drawing and its numbers. Colours, labels and
order come from the catalogue, the look from `paper_figures/paper.mplstyle`.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.catalogue import Catalogue, read_catalogue
from analysis.drawing import Drawing, Shown
from analysis.learning_plots import LEARNING_PLOTS
from analysis.line_plots import LINE_PLOTS
from analysis.stat_plots import STAT_PLOTS
from tdmpc2.common.paths import project_root


def task_embeddings(shown: Shown) -> Drawing:
    """Task embeddings of the checkpoints by t-SNE, a panel each."""
    if not shown.checkpoints:
        return Drawing((), pd.DataFrame())
    # Here, since scikit-learn and torch take seconds to import.
    from analysis.embedding_plots import embedding_figure

    return embedding_figure(shown.checkpoints)


PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    **LINE_PLOTS,
    **STAT_PLOTS,
    **LEARNING_PLOTS,
    "task_embeddings": task_embeddings,
}
"""The functions a figure of the catalogue may name."""


def shipped_catalogue() -> Catalogue:
    """That of `paper_figures/figures.toml`."""
    return read_catalogue(project_root() / "paper_figures" / "figures.toml", PLOTS)
