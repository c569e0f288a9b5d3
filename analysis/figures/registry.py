"""Registry of the plot functions that `plot` in `paper_figures/figures.toml` may name."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.figures.catalog_file import catalog_path
from analysis.figures.figure_specs import Catalog, read_catalog
from analysis.figures.learning_plots import LEARNING_PLOTS
from analysis.figures.line_plots import LINE_PLOTS
from analysis.figures.multitask_plots import MULTITASK_PLOTS
from analysis.figures.scaling_plots import SCALING_PLOTS
from analysis.figures.stat_plots import STAT_PLOTS
from analysis.figures.styles import Drawing, Shown


def task_embeddings(shown: Shown) -> Drawing:
    """Draw a t-SNE plot of the task embeddings, one panel per agent."""
    if not shown.embeddings:
        return Drawing((), pd.DataFrame())
    # Local import, because scikit-learn and torch take seconds to import.
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
"""Plot functions by name; each returns a drawing and the plotted numbers."""


def shipped_catalog() -> Catalog:
    """Return the catalog in `paper_figures/figures.toml`."""
    return read_catalog(catalog_path(), PLOTS)
