"""t-SNE figure of the task embeddings of multi-task agents (Figure 7, appendix F)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from analysis.figures.page import canvas, finish_figure
from analysis.figures.styles import Drawing
from analysis.stats.task_embeddings import Embedding, neighbor_text, read_embedding
from tdmpc2.envs.tasks import TASKS

NEIGHBORS = 3
METRICS = ("cosine", "euclidean")
_PERPLEXITY = 10.0
_LARGEST_SHARE = 3
"""The perplexity is at most the number of other tasks divided by this."""
_METAWORLD = "Meta-World"
_TITLE_WIDTH = 50
_COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#6A3D9A", "#8C6D31"),
    *("#000000", "#7F7F7F"),
)


def embedding_figure(paths: Sequence[Path], seed: int = 0) -> Drawing:
    """Draw the task embeddings by t-SNE (van der Maaten and Hinton 2008), one panel per agent.

    Args:
        paths: run directories or checkpoints of multi-task agents; see `read_embedding`.
        seed: seed of t-SNE.
    """
    embeddings = [read_embedding(path) for path in paths]
    tables = [_table(embedding, seed) for embedding in embeddings]
    numbers = pd.concat(tables, ignore_index=True)
    families = list(dict.fromkeys(numbers["family"]))
    looks = {
        family: (_COLORS[i % len(_COLORS)], "os"[i // len(_COLORS) % 2])
        for i, family in enumerate(families)
    } | {_METAWORLD: ("#B8B8B8", "o")}
    looks = {family: looks[family] for family in families}
    figure, axes = canvas(len(paths), panel=(3.6, 3.4), columns=min(len(paths), 2))
    for ax, embedding, table in zip(axes, embeddings, tables, strict=True):
        for family, own in table.groupby("family", sort=False):
            color, marker = looks[str(family)]
            ax.plot(own["x"], own["y"], ls="", marker=marker, ms=4, color=color, alpha=0.85)
        norms = f"norms {embedding.norms.min():.2f} to {embedding.norms.max():.2f}"
        title = textwrap.wrap(embedding.label, _TITLE_WIDTH)
        ax.set_title("\n".join([*title, norms]), loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", ms=4, label=family)
        for family, (color, marker) in looks.items()
    ]
    perplexities = sorted({_perplexity(embedding) for embedding in embeddings})
    what = (
        "One mark per task: t-SNE of the embeddings' cosine distances, perplexity "
        f"{' or '.join(f'{value:.3g}' for value in perplexities)}, generator seed {seed}. Nearby "
        "marks mean similar embeddings; large distances are not meaningful. Norms are Euclidean."
    )
    finish_figure(figure, handles, [what])
    columns = ["agent", "task", "norm", *METRICS]
    short = numbers[columns].assign(norm=numbers["norm"].map("{:.2f}".format))
    return Drawing([figure], numbers, short)


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
