"""Registry of the plot functions that `plot` in `paper_figures/figures.toml` may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.figures.catalog_file import catalog_path
from analysis.figures.distribution_plots import DISTRIBUTION_PLOTS
from analysis.figures.evidence_plots import EVIDENCE_PLOTS
from analysis.figures.figure_specs import Catalog, FigureSpec, read_catalog
from analysis.figures.gallery import GALLERY_PLOTS
from analysis.figures.learning_plots import LEARNING_PLOTS
from analysis.figures.line_plots import LINE_PLOTS
from analysis.figures.multitask_plots import MULTITASK_PLOTS
from analysis.figures.scaling_plots import SCALING_PLOTS
from analysis.figures.stat_plots import STAT_PLOTS
from analysis.figures.styles import Drawing, Shown
from analysis.records.evaluations import ENV_STEPS, NUM_UPDATES, StepUnit
from analysis.records.load import Records
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule


def task_embeddings(shown: Shown) -> Drawing:
    """Draw a t-SNE plot of the task embeddings, one panel per agent."""
    if not shown.embeddings:
        return Drawing((), pd.DataFrame())
    # Local import, because scikit-learn and torch take seconds to import.
    from analysis.figures.embedding_plots import embedding_figure

    return embedding_figure(shown.embeddings, layout=shown.layout)


PLOTS: dict[str, Callable[[Shown], Drawing]] = {
    **LINE_PLOTS,
    **EVIDENCE_PLOTS,
    **STAT_PLOTS,
    **DISTRIBUTION_PLOTS,
    **LEARNING_PLOTS,
    **MULTITASK_PLOTS,
    **SCALING_PLOTS,
    **GALLERY_PLOTS,
    "task_embeddings": task_embeddings,
}
"""Plot functions by name; each returns a drawing and the plotted numbers."""


def step_unit_of(spec: FigureSpec) -> StepUnit:
    """Return the unit of the steps that a figure shows."""
    multitask = spec.plot in MULTITASK_PLOTS or spec.plot in SCALING_PLOTS
    return NUM_UPDATES if multitask else ENV_STEPS


def select(
    spec: FigureSpec,
    records: Records,
    rule: Rule,
    catalog: Catalog,
    **inputs: Any,
) -> Shown:
    """Return the inputs of a figure: the records that it shows, with steps of one unit.

    Args:
        spec: the figure.
        records: the records from all sources.
        rule: treatment of missing and repeated evaluations.
        catalog: figures, styles and bootstrap settings.
        **inputs: `embeddings`, `frames` and `layout` of `Shown`.
    """
    step_unit = step_unit_of(spec)
    selected = records.select(
        sources=spec.sources,
        methods=spec.methods,
        variants=spec.variants,
        sizes=spec.sizes,
        obs=spec.obs,
        tasks=spec.tasks or tuple({task for group in spec.groups for task in group.tasks}),
        step_unit=step_unit,
    )
    if spec.only_ours:
        ours = selected.runs.loc[selected.runs["source"] == RUNS_SOURCE, "task"].unique().tolist()
        selected = selected.select(tasks=ours) if ours else selected.select(sources=["none"])
    curves = ScoreCurves(selected, step_unit)
    return Shown(spec, selected, curves, rule, catalog, **inputs)


def shipped_catalog() -> Catalog:
    """Return the catalog in `paper_figures/figures.toml`."""
    return read_catalog(catalog_path(), PLOTS)
