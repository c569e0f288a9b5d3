"""Task embeddings of multi-task agents: reading, distances and nearest neighbors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular
from tdmpc2.envs.tasks import SUITES

KEYS = ("task_embedding", "_task_emb.weight")
"""Names of the embedding in our checkpoints and in the official ones."""
_CHECKPOINTS, _STATE = "checkpoints", "state.pt"


@dataclass(frozen=True, eq=False)
class Embedding:
    """The task embedding of one agent.

    Attributes:
        label: name of the agent in figures.
        tasks: task names, in the agent's order.
        values: `(num_tasks, task_dim)`.
    """

    label: str
    tasks: tuple[str, ...]
    values: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """Euclidean norms, `(num_tasks,)`."""
        return np.linalg.norm(self.values, axis=1)

    def distances(self, metric: str) -> np.ndarray:
        """Return the pairwise distances of the tasks, `(num_tasks, num_tasks)`.

        Args:
            metric: `cosine` (1 − cosine similarity, 0 to 2) or `euclidean`.
        """
        if metric == "euclidean":
            return np.linalg.norm(self.values[:, None] - self.values, axis=2)
        unit = self.values / np.maximum(self.norms, 1e-12)[:, None]
        distances = np.clip(1 - unit @ unit.T, 0, 2)
        np.fill_diagonal(distances, 0)
        return distances

    def neighbors(self, metric: str, count: int) -> list[list[tuple[str, float]]]:
        """Return the nearest other tasks of each task with their distances, the nearest first.

        Args:
            metric: as for `distances`.
            count: number of neighbors, limited to the number of other tasks.
        """
        distances = self.distances(metric)
        order = np.argsort(
            distances + np.diag(np.full(len(distances), np.inf)), axis=1, kind="stable"
        )
        nearest = order[:, : min(count, len(distances) - 1)]
        return [
            [(self.tasks[other], float(distances[task, other])) for other in others]
            for task, others in enumerate(nearest)
        ]


def read_embedding(path: Path) -> Embedding:
    """Read the task embedding of an agent.

    Only tensors and plain containers are loaded from the file.

    Args:
        path: a run directory, of which the newest checkpoint is used; the `state.pt` of a
            checkpoint; or a separate checkpoint file, ours or official.

    Raises:
        UserError: If there is no readable checkpoint, or the agent is not a multi-task agent, or
            its tasks are unknown.
    """
    file = _newest(path) if path.is_dir() else path
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types of errors for other files
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: cannot be read as a checkpoint ({reason})") from None
    tensor = next(_embeddings(content), None)
    if tensor is None:
        raise UserError(f"{file}: contains no task embedding; not a multi-task agent")
    values = tensor.detach().to(torch.float64).numpy()
    label, tasks = _named(file, len(values))
    if len(tasks) < 2:
        raise UserError(f"{file}: embeds a single task; at least two are needed")
    return Embedding(label, tasks, values)


def _newest(run: Path) -> Path:
    """Return the newest checkpoint of a run directory."""
    files = [path / _STATE for path in CheckpointStore(run).existing()]
    found = [file for file in files if file.is_file()]
    if not found:
        raise UserError(f"{run}: contains no checkpoint ({_CHECKPOINTS}/<n>/{_STATE})")
    return found[-1]


def _embeddings(content: Any) -> Iterator[torch.Tensor]:
    """Yield every task embedding in nested containers."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            known = str(key).endswith(KEYS)
            if known and isinstance(value, torch.Tensor) and value.dim() == 2:
                yield value
            else:
                yield from _embeddings(value)


def _named(file: Path, count: int) -> tuple[str, tuple[str, ...]]:
    """Return label and tasks of an agent, from its `spec.json` or the number of tasks."""
    if file.name == _STATE and file.parent.parent.name == _CHECKPOINTS:
        return _by_spec(file.parents[2] / "spec.json", count)
    for suite in ("mt30", "mt80"):
        if count == len(SUITES[suite]):
            return file.stem, tuple(task.name for task in SUITES[suite])
    raise UserError(
        f"{file}: embeds {count} tasks; without a run directory, only 30 or 80 are supported"
    )


def _by_spec(path: Path, count: int) -> tuple[str, tuple[str, ...]]:
    """Return label and tasks of an agent from the `spec.json` of its run."""
    try:
        spec = json.loads(regular(path).read_text(encoding="utf-8"))
        tasks = tuple(map(str, spec["tasks"]))
        label = f"{spec['variant']}, {spec['task']}, seed {spec['seed']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: does not contain the tasks of the run ({what})") from None
    if len(tasks) != count:
        raise UserError(f"{path}: lists {len(tasks)} tasks, but the checkpoint embeds {count}")
    return label, tasks


def neighbor_text(neighbors: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """Return each task's neighbors in one line: `walker-run 0.12, walker-walk 0.15`."""
    return [", ".join(f"{name} {distance:.2f}" for name, distance in own) for own in neighbors]
