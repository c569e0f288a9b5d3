"""Room of the task embeddings: what a multi-task agent holds to be alike (Figure 7, appendix F)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from analysis.drawing import Drawing
from analysis.layout import canvas, finish_figure
from tdmpc2.common.errors import UserError
from tdmpc2.envs.tasks import SUITES, TASKS

KEYS = ("task_embedding", "_task_emb.weight")
"""Names of the embedding, ours and the official one."""
NEIGHBOURS = 3
_PERPLEXITY = 10.0
_OTHERS = "Meta-World"
_COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#6A3D9A", "#8C6D31"),
    *("#000000", "#7F7F7F"),
)


def embedding_figure(files: Sequence[Path], seed: int = 0) -> Drawing:
    """A panel per checkpoint: its task embeddings by t-SNE (van der Maaten and Hinton 2008).

    Args:
        files: checkpoints of multi-task agents on 30 or 80 tasks, ours or official ones.
        seed: of t-SNE.

    Raises:
        UserError: a file that is no such checkpoint.
    """
    tables = [_table(file, seed) for file in files]
    numbers = pd.concat(tables, ignore_index=True)
    families = list(dict.fromkeys(numbers["family"]))
    looks = {
        family: (_COLORS[i % len(_COLORS)], "os"[i // len(_COLORS) % 2])
        for i, family in enumerate(families)
    } | {_OTHERS: ("#B8B8B8", "o")}
    looks = {family: looks[family] for family in families}
    figure, axes = canvas(len(files), panel=(3.6, 3.4), columns=min(len(files), 2))
    for ax, file, table in zip(axes, files, tables, strict=True):
        for family, own in table.groupby("family", sort=False):
            color, marker = looks[str(family)]
            ax.plot(own["x"], own["y"], ls="", marker=marker, ms=4, color=color, alpha=0.85)
        norm = table["norm"]
        title = f"{file.stem}: norms {norm.min():.2f} to {norm.max():.2f}"
        ax.set_title(title, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", ms=4, label=family)
        for family, (color, marker) in looks.items()
    ]
    what = (
        f"One mark a task; t-SNE of the embeddings' cosine distances, perplexity {_PERPLEXITY:g}, "
        f"generator seed {seed}: near means alike, far means little. Norms are Euclidean."
    )
    finish_figure(figure, handles, [what])
    columns = ["checkpoint", "task", "norm", "neighbours"]
    short = numbers[columns].assign(norm=numbers["norm"].map("{:.2f}".format))
    return Drawing([figure], numbers, short)


def read_embedding(file: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Tasks and their embeddings `(num_tasks, task_dim)`, in the agent's order.

    Args:
        file: a checkpoint; only tensors and plain containers are loaded from it.

    Raises:
        UserError: unreadable, no multi-task agent, or one of other than 30 or 80 tasks.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for files that are none of its own
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: cannot be read as a checkpoint ({reason})") from None
    found = next(_embeddings(content), None)
    if found is None:
        raise UserError(f"{file}: holds no task embedding, so no multi-task agent")
    values = found.detach().to(torch.float64).numpy()
    for suite in ("mt30", "mt80"):
        if len(values) == len(SUITES[suite]):
            return tuple(task.name for task in SUITES[suite]), values
    raise UserError(f"{file}: embeds {len(values)} tasks; the names of 30 or 80 are known")


def _embeddings(content: Any) -> Iterator[torch.Tensor]:
    """Every task embedding in nested containers."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            known = str(key).endswith(KEYS)
            if known and isinstance(value, torch.Tensor) and value.dim() == 2:
                yield value
            else:
                yield from _embeddings(value)


def _table(file: Path, seed: int) -> pd.DataFrame:
    """Place, family, norm and nearest neighbours of every task."""
    tasks, values = read_embedding(file)
    norms = np.linalg.norm(values, axis=1)
    unit = values / np.maximum(norms, 1e-12)[:, None]
    distances = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(distances, 0)
    places = TSNE(
        metric="precomputed", init="random", perplexity=_PERPLEXITY, random_state=seed
    ).fit_transform(distances)
    order = np.argsort(distances + 9 * np.eye(len(tasks)), axis=1, kind="stable")
    return pd.DataFrame(
        {
            "checkpoint": file.stem,
            "task": tasks,
            "family": [_family(task) for task in tasks],
            "norm": norms,
            "x": places[:, 0],
            "y": places[:, 1],
            "neighbours": [" ".join(tasks[i] for i in row[:NEIGHBOURS]) for row in order],
        }
    )


def _family(task: str) -> str:
    """What tasks share: the body in DMControl, elsewhere the domain."""
    return task.partition("-")[0] if TASKS[task].domain == "dmcontrol" else _OTHERS
