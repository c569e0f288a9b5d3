"""Room of the task embeddings as numbers: read from an agent, and what lies near what in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import SUITES

KEYS = ("task_embedding", "_task_emb.weight")
"""Names of the embedding, ours and the official one."""
_CHECKPOINTS, _STATE = "checkpoints", "state.pt"


@dataclass(frozen=True, eq=False)
class Embedding:
    """The task embedding of one agent.

    Attributes:
        label: what to call the agent.
        tasks: in the agent's order.
        values: `(num_tasks, task_dim)`.
    """

    label: str
    tasks: tuple[str, ...]
    values: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """`(num_tasks,)`: Euclidean norms."""
        return np.linalg.norm(self.values, axis=1)

    def distances(self, metric: str) -> np.ndarray:
        """`(num_tasks, num_tasks)` between any two tasks.

        Args:
            metric: `cosine` (1 − the cosine of the angle, 0 to 2) or `euclidean`.
        """
        if metric == "euclidean":
            return np.linalg.norm(self.values[:, None] - self.values, axis=2)
        unit = self.values / np.maximum(self.norms, 1e-12)[:, None]
        found = np.clip(1 - unit @ unit.T, 0, 2)
        np.fill_diagonal(found, 0)
        return found

    def neighbors(self, metric: str, count: int) -> list[list[tuple[str, float]]]:
        """For each task the nearest others with their distances, the nearest first.

        Args:
            metric: as for `distances`.
            count: how many, of at most all others.
        """
        found = self.distances(metric)
        order = np.argsort(found + np.diag(np.full(len(found), np.inf)), axis=1, kind="stable")
        nearest = order[:, : min(count, len(found) - 1)]
        return [
            [(self.tasks[other], float(found[task, other])) for other in others]
            for task, others in enumerate(nearest)
        ]


def read_embedding(path: Path) -> Embedding:
    """The task embedding of an agent.

    Args:
        path: a run directory, whose newest checkpoint is taken; the `state.pt` of one; or a
            checkpoint file by itself, ours or official. Only tensors and plain containers are
            loaded from it.

    Raises:
        UserError: unreadable, no checkpoint yet, no multi-task agent, or one whose tasks nothing
            names.
    """
    file = _newest(path) if path.is_dir() else path
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a dozen kinds for files that are none of its own
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: cannot be read as a checkpoint ({reason})") from None
    found = next(_embeddings(content), None)
    if found is None:
        raise UserError(f"{file}: holds no task embedding, so no multi-task agent")
    values = found.detach().to(torch.float64).numpy()
    label, tasks = _named(file, len(values))
    if len(tasks) < 2:
        raise UserError(f"{file}: embeds a single task, which has no neighbors")
    return Embedding(label, tasks, values)


def _newest(run: Path) -> Path:
    """The newest checkpoint of a run directory."""
    found = [file for file in run.glob(f"{_CHECKPOINTS}/*/{_STATE}") if file.parent.name.isdigit()]
    if not found:
        raise UserError(f"{run}: holds no checkpoint ({_CHECKPOINTS}/<n>/{_STATE})")
    return max(found, key=lambda file: int(file.parent.name))


def _embeddings(content: Any) -> Iterator[torch.Tensor]:
    """Every task embedding in nested containers."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            known = str(key).endswith(KEYS)
            if known and isinstance(value, torch.Tensor) and value.dim() == 2:
                yield value
            else:
                yield from _embeddings(value)


def _named(file: Path, count: int) -> tuple[str, tuple[str, ...]]:
    """What to call an agent, and its tasks: by its run's `spec.json`, or else by their number."""
    if file.name == _STATE and file.parent.parent.name == _CHECKPOINTS:
        return _by_spec(file.parents[2] / "spec.json", count)
    for suite in ("mt30", "mt80"):
        if count == len(SUITES[suite]):
            return file.stem, tuple(task.name for task in SUITES[suite])
    raise UserError(f"{file}: embeds {count} tasks; only a run directory names other than 30 or 80")


def _by_spec(path: Path, count: int) -> tuple[str, tuple[str, ...]]:
    """What to call an agent, and its tasks, by what its run says it is."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        tasks = tuple(map(str, spec["tasks"]))
        label = f"{spec['variant']}, {spec['task']}, seed {spec['seed']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: does not name the tasks of the run ({what})") from None
    if len(tasks) != count:
        raise UserError(f"{path}: names {len(tasks)} tasks, the checkpoint embeds {count}")
    return label, tasks


def neighbor_text(found: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """Each task's neighbors in one line, `walker-run 0.12, walker-walk 0.15`."""
    return [", ".join(f"{name} {distance:.2f}" for name, distance in own) for own in found]
