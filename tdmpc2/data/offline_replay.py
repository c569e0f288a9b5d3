"""Sampling of sub-trajectories from a dataset that may be larger than memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc2.common.replay.types import Batch
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.shard import Shard


class _Source(NamedTuple):
    """A shard as sampling sees it."""

    rows: np.ndarray  # memory-mapped
    task: int
    obs_dim: int
    action_dim: int


class OfflineReplay:
    """The episodes of some of a dataset's tasks, of which sub-trajectories are drawn.

    A draw is uniform over all places of all chosen tasks where L transitions fit into an
    episode (ALGORITHMS A7), so a task weighs as much as it has data. Rows stay in their
    memory-mapped files; held are 13 bytes per episode.

    Args:
        dataset: to sample from.
        tasks: any of its tasks, in the order of the agent's embedding; batches carry places in
            this order.
        length: L, transitions of a sub-trajectory.
        obs_dim, action_dim: of batches; observations and actions of smaller tasks end in zeros.
        generator: where draws come from (on the CPU).

    Raises:
        UserError: a task that the dataset has not, or none of whose episodes is long enough.
    """

    def __init__(
        self,
        dataset: Dataset,
        tasks: Sequence[str],
        length: int,
        obs_dim: int,
        action_dim: int,
        *,
        generator: Generator,
    ) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"different tasks are needed, not {list(tasks)}")
        self.dataset, self.tasks, self.length = dataset, tuple(tasks), length
        self.obs_dim, self.action_dim, self.generator = obs_dim, action_dim, generator
        self.num_episodes = self.num_transitions = 0
        self._sources: list[_Source] = []
        found: list[tuple[np.ndarray, ...]] = []
        for index, task in enumerate(tasks):
            shards = [self._add(index, shard) for shard in dataset.shards(task)]
            if not any(starts.any() for starts, *_ in shards):
                raise UserError(
                    f"{dataset.folder}: no episode of {task} has {length} or more transitions"
                )
            found += shards
        starts, self._first_row, self._terminated = map(np.concatenate, zip(*found, strict=True))
        # Starts before each episode and before each shard, and at the end those of all.
        self._bounds = np.concatenate([[0], np.cumsum(starts)])
        episodes = np.cumsum([0, *(len(each) for each, _, _ in found)])
        self._shard_bounds = self._bounds[episodes]
        self._task = np.array([source.task for source in self._sources])
        num_rows = [0, *(len(source.rows) for source in self._sources[:-1])]
        self._shard_row = np.cumsum(num_rows)  # rows of the shards before it
        self._window = np.arange(length + 1)

    def _add(self, index: int, shard: Shard) -> tuple[np.ndarray, ...]:
        """Opens a shard; of each episode: starts, first row, whether it terminated."""
        if shard.obs_dim > self.obs_dim or shard.action_dim > self.action_dim:
            raise ValueError(
                f"{shard.task}: {shard.obs_dim} and {shard.action_dim} dims do not fit "
                f"{self.obs_dim} and {self.action_dim}"
            )
        rows = shard.rows()
        # What lies around a draw is not drawn next, so it need not be read ahead.
        rows._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        # A plain array of the same memory: indexing a `memmap` costs several times as much.
        self._sources.append(_Source(np.asarray(rows), index, shard.obs_dim, shard.action_dim))
        self.num_episodes += shard.num_episodes
        self.num_transitions += shard.num_transitions
        lengths, terminated = np.asarray(shard.episodes()).T
        first = np.cumsum(lengths + 1, dtype=np.int64) - (lengths + 1)
        starts = np.maximum(lengths.astype(np.int64) - self.length + 1, 0)
        return starts, first.astype(np.int32), terminated.astype(bool)

    @property
    def num_starts(self) -> int:
        """Sub-trajectories that can be sampled."""
        return int(self._bounds[-1])

    def sample(
        self, batch_size: int, length: int | None = None, part: slice = slice(None)
    ) -> Batch:
        """Draws sub-trajectories with replacement, on the CPU.

        Args:
            batch_size: B.
            length: must be the memory's own L, if given.
            part: which of the B are wanted: one process's share of a batch of several. All are
                drawn, so that the generators of the processes stay alike.

        Returns:
            A batch with `task`; `start` counts the rows of all chosen shards.
        """
        if length not in (None, self.length):
            raise ValueError(f"this memory samples {self.length} transitions, not {length}")
        draws = torch.randint(self.num_starts, (batch_size,), generator=self.generator)
        return self._gather(draws[part].numpy())

    def _gather(self, draws: np.ndarray) -> Batch:
        """The sub-trajectories that begin at some starts, in their order."""
        num, length = len(draws), self.length
        order = np.argsort(draws)  # brings those of a shard together
        draws = draws[order]
        episode = np.searchsorted(self._bounds, draws, side="right") - 1
        row = self._first_row[episode] + (draws - self._bounds[episode])
        at_end = draws == self._bounds[episode + 1] - 1
        obs = np.zeros((num, length + 1, self.obs_dim), np.float32)
        action = np.zeros((num, length, self.action_dim), np.float32)
        reward = np.empty((num, length), np.float32)
        terminated = np.zeros((num, length), np.float32)
        terminated[:, -1] = at_end & self._terminated[episode]
        rows = row[:, None] + self._window
        cuts = np.searchsorted(draws, self._shard_bounds)
        for i in np.flatnonzero(np.diff(cuts)):
            here, source = slice(cuts[i], cuts[i + 1]), self._sources[i]
            o, a = source.obs_dim, source.action_dim
            found = source.rows[rows[here]]
            obs[here, :, :o] = found[..., :o]
            action[here, :, :a] = found[:, :-1, o:-1]
            reward[here] = found[:, :-1, -1]
        shard = np.repeat(np.arange(len(self._sources)), np.diff(cuts))
        back = np.empty(num, np.int64)
        back[order] = np.arange(num)
        drawn = torch.from_numpy(back)
        return Batch(
            obs=_time_first(obs, drawn),
            action=_time_first(action, drawn),
            reward=_time_first(reward, drawn),
            terminated=_time_first(terminated, drawn),
            task=torch.from_numpy(self._task[shard][back]),
            start=torch.from_numpy((self._shard_row[shard] + row)[back]),
        )

    def state_dict(self) -> dict[str, Any]:
        """What sampling goes on from bit for bit, and what it is of; a few kilobytes."""
        return {"generator": self.generator.get_state(), "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was called.

        Raises:
            UserError: that was another dataset, or other tasks of it.
        """
        if state["of"] != self._identity():
            raise UserError(
                f"{self.dataset.folder}: not the dataset, or not the tasks, that were sampled "
                f"before (checksum {state['of']['checksum'][:12]})"
            )
        self.generator.set_state(state["generator"])

    def _identity(self) -> dict[str, Any]:
        return {
            "checksum": self.dataset.checksum,
            "tasks": list(self.tasks),
            "length": self.length,
        }


def _time_first(x: np.ndarray, order: Tensor) -> Tensor:
    """`(B, L, …)` as `(L, B, …)`, contiguous, with its B in another order."""
    return torch.from_numpy(x).transpose(0, 1).index_select(1, order)
