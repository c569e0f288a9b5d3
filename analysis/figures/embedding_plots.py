"""t-SNE figure of the task embeddings of multi-task agents (Figure 7, appendix F)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from analysis.figures.page import canvas, finish_figure, set_title
from analysis.figures.styles import Drawing, Layout
from analysis.stats.task_embeddings import Embedding, neighbor_text, read_embedding
from tdmpc2.envs.tasks import TASKS

NEIGHBORS = 3
METRICS = ("cosine", "euclidean")
_PERPLEXITY = 10.0
_LARGEST_SHARE = 3
"""The perplexity is at most the number of other tasks divided by this."""
_METAWORLD = "Meta-World"
_TITLE_WIDTH = 40
_PANEL_WIDTH, _PANEL_HEIGHT = 2.7, 2.7
_NUM_COLORS, _MARKERS = 8, "s^vDPX<>*phd8"
"""Number of colors, and markers, which tell families apart in print without color."""
_OTHERS_COLOR = "#B8B8B8"
"""Color of the largest family, Meta-World, so that the others stand out."""


def embedding_figure(paths: Sequence[Path], seed: int = 0, layout: Layout | None = None) -> Drawing:
    """Draw the task embeddings by t-SNE (van der Maaten and Hinton 2008), one panel per agent.

    Args:
        paths: run directories or checkpoints of multi-task agents; see `read_embedding`.
        seed: seed of t-SNE.
        layout: layout of the page; None for the default.
    """
    embeddings = [read_embedding(path) for path in paths]
    tables = [_table(embedding, seed) for embedding in embeddings]
    numbers = pd.concat(tables, ignore_index=True)
    looks = _looks(list(dict.fromkeys(numbers["family"])))
    page, axes = canvas(
        len(paths), layout or Layout(), least_width=_PANEL_WIDTH, height=_PANEL_HEIGHT
    )
    for ax, embedding, table in zip(axes, embeddings, tables, strict=True):
        for family, own in table.groupby("family", sort=False):
            color, marker = looks[str(family)]
            look = _mark(str(family), color, marker)
            ax.plot(own["x"], own["y"], **look, alpha=0.85)
        norms = f"norms {embedding.norms.min():.2f} to {embedding.norms.max():.2f}"
        title = textwrap.wrap(embedding.label, _TITLE_WIDTH)
        set_title(page, ax, "\n".join([*title, norms]))
        ax.set_xticks([])
        ax.set_yticks([])
    handles = [
        Line2D([], [], **_mark(family, color, marker), label=family)
        for family, (color, marker) in looks.items()
    ]
    perplexities = sorted({_perplexity(embedding) for embedding in embeddings})
    what = (
        "One mark per task: t-SNE of the embeddings' cosine distances, perplexity "
        f"{' or '.join(f'{value:.3g}' for value in perplexities)}, generator seed {seed}. Nearby "
        "marks mean similar embeddings; large distances are not meaningful. Norms are Euclidean."
    )
    finish_figure(page, handles, [what])
    columns = ["agent", "task", "norm", *METRICS]
    short = numbers[columns].assign(norm=numbers["norm"].map("{:.2f}".format))
    return Drawing([page], numbers, short)


def _mark(family: str, color: Any, marker: str) -> dict[str, Any]:
    """Return the properties of the marks of a family; those of the largest one are hollow."""
    face = "none" if family == _METAWORLD else color
    return {"color": color, "marker": marker, "mfc": face, "ls": "", "ms": 4.5}


def _looks(families: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Return color and marker of each family of tasks, no two alike."""
    palette = sns.color_palette("colorblind", _NUM_COLORS)
    looks = {
        family: (palette[i % _NUM_COLORS], _MARKERS[i % len(_MARKERS)])
        for i, family in enumerate(family for family in families if family != _METAWORLD)
    }
    return {family: looks.get(family, (_OTHERS_COLOR, "o")) for family in families}


def _table(embedding: Embedding, seed: int) -> pd.DataFrame:
    """Return coordinates, family, norm and nearest neighbors of every task."""
    places = TSNE(
        metric="precomputed",
        init="random",
        perplexity=_perplexity(embedding),
        random_state=seed,
    ).fit_transform(embedding.distances("cosine"))
    nearest = {metric: neighbor_text(embedding.neighbors(metric, NEIGHBORS)) for metric in METRICS}
    return pd.DataFrame(
        {
            "agent": embedding.label,
            "task": embedding.tasks,
            "family": [_family(task) for task in embedding.tasks],
            "norm": embedding.norms,
            "x": places[:, 0],
            "y": places[:, 1],
            **nearest,
        }
    )


def _perplexity(embedding: Embedding) -> float:
    """Return the perplexity of t-SNE, reduced for few tasks."""
    return float(np.minimum(_PERPLEXITY, (len(embedding.tasks) - 1) / _LARGEST_SHARE))


def _family(task: str) -> str:
    """Return the group of a task: the body in DMControl, else the domain."""
    if task not in TASKS:
        return "other"
    domain = TASKS[task].domain
    if domain == "metaworld":
        return _METAWORLD
    return task.partition("-")[0] if domain == "dmcontrol" else domain
