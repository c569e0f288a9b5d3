"""Sample sub-trajectories from a dataset that may be larger than memory."""

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
    """An opened shard."""

    rows: np.ndarray  # memory-mapped
    task: int
    obs_dim: int
    action_dim: int


class OfflineReplay:
    """Replay buffer of the episodes of some tasks of a dataset.

    Sampling is uniform over all positions, in all chosen tasks, at which a sub-trajectory of L
    transitions fits into an episode. Therefore the probability of a task is proportional to its
    data. Rows stay in memory-mapped files; 13 bytes per episode are kept in memory.

    Args:
        dataset: the dataset to sample from.
        tasks: some of its tasks, in the order of the agent's task embedding; the `task` of a
            batch is an index into this order.
        length: L, transitions of a sub-trajectory.
        obs_dim, action_dim: dimensions of batches; smaller tasks are padded with zeros.
        generator: generator for sampling (on the CPU).

    Raises:
        UserError: the dataset lacks a task, a task has no episode of at least L transitions, or the
            file of episodes of a shard is damaged.
        ValueError: no tasks, a task twice, or a task that exceeds `obs_dim` or `action_dim`.
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
            raise ValueError(f"tasks: {list(tasks)} is not a non-empty list of different tasks")
        self.dataset, self.tasks, self.length = dataset, tuple(tasks), length
        self.obs_dim, self.action_dim, self.generator = obs_dim, action_dim, generator
        self.num_episodes = self.num_transitions = 0
        self._sources: list[_Source] = []
        episodes_of: list[tuple[np.ndarray, ...]] = []  # for each shard
        for index, task in enumerate(tasks):
            shards = [self._add(index, shard) for shard in dataset.shards(task)]
            if not any(starts.any() for starts, *_ in shards):
                raise UserError(
                    f"{dataset.folder}: no episode of {task} has {length} or more transitions"
                )
            episodes_of += shards
        starts, self._first_row, self._terminated = map(
            np.concatenate, zip(*episodes_of, strict=True)
        )
        # Number of starts before each episode, and before each shard; the last entry is the total.
        self._bounds = np.concatenate([[0], np.cumsum(starts)])
        episodes = np.cumsum([0, *(len(each) for each, _, _ in episodes_of)])
        self._shard_bounds = self._bounds[episodes]
        self._task = np.array([source.task for source in self._sources])
        num_rows = [0, *(len(source.rows) for source in self._sources[:-1])]
        self._shard_row = np.cumsum(num_rows)  # rows of the shards before it
        self._window = np.arange(length + 1)

    def _add(self, index: int, shard: Shard) -> tuple[np.ndarray, ...]:
        """Open a shard; return the number of starts, first row and termination of each episode."""
        if shard.obs_dim > self.obs_dim or shard.action_dim > self.action_dim:
            raise ValueError(
                f"{shard.task}: obs_dim {shard.obs_dim} and action_dim {shard.action_dim} exceed "
                f"{self.obs_dim} and {self.action_dim}"
            )
        rows = shard.rows()
        # Access is random, so reading ahead is useless.
        rows._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        # A plain array on the same memory: indexing a `memmap` takes several times as long.
        self._sources.append(_Source(np.asarray(rows), index, shard.obs_dim, shard.action_dim))
        self.num_episodes += shard.num_episodes
        self.num_transitions += shard.num_transitions
        lengths, terminated = np.asarray(shard.episodes()).T
        first = np.cumsum(lengths + 1, dtype=np.int64) - (lengths + 1)
        starts = np.maximum(lengths.astype(np.int64) - self.length + 1, 0)
        return starts, first.astype(np.int32), terminated.astype(bool)

    @property
    def num_starts(self) -> int:
        """Number of different sub-trajectories that can be sampled."""
        return int(self._bounds[-1])

    def sample(
        self, batch_size: int, length: int | None = None, part: slice = slice(None)
    ) -> Batch:
        """Sample sub-trajectories with replacement, on the CPU.

        Args:
            batch_size: B.
            length: None, or the L of this replay buffer.
            part: slice of the B sub-trajectories to return: the share of one process in a
                distributed batch. All B are sampled, so that the generators of the processes stay
                equal.

        Returns:
            A batch with `task`; `start` is the row number over all chosen shards.

        Raises:
            ValueError: `length` is not L.
        """
        if length not in (None, self.length):
            raise ValueError(
                f"length={length}: this replay buffer samples {self.length} transitions"
            )
        starts = torch.randint(self.num_starts, (batch_size,), generator=self.generator)
        return self._gather(starts[part].numpy())

    def _gather(self, starts: np.ndarray) -> Batch:
        """Return the sub-trajectories at the given starts, in their order."""
        num, length = len(starts), self.length
        order = np.argsort(starts)  # groups the starts by shard
        starts = starts[order]
        episode = np.searchsorted(self._bounds, starts, side="right") - 1
        row = self._first_row[episode] + (starts - self._bounds[episode])
        at_end = starts == self._bounds[episode + 1] - 1
        obs = np.zeros((num, length + 1, self.obs_dim), np.float32)
        action = np.zeros((num, length, self.action_dim), np.float32)
        reward = np.empty((num, length), np.float32)
        terminated = np.zeros((num, length), np.float32)
        terminated[:, -1] = at_end & self._terminated[episode]
        rows = row[:, None] + self._window
        cuts = np.searchsorted(starts, self._shard_bounds)
        for i in np.flatnonzero(np.diff(cuts)):
            in_shard, source = slice(cuts[i], cuts[i + 1]), self._sources[i]
            o, a = source.obs_dim, source.action_dim
            values = source.rows[rows[in_shard]]
            obs[in_shard, :, :o] = values[..., :o]
            action[in_shard, :, :a] = values[:, :-1, o:-1]
            reward[in_shard] = values[:, :-1, -1]
        shard = np.repeat(np.arange(len(self._sources)), np.diff(cuts))
        inverse = np.empty(num, np.int64)  # restores the order of `starts` as given
        inverse[order] = np.arange(num)
        inverse_tensor = torch.from_numpy(inverse)
        return Batch(
            obs=_time_first(obs, inverse_tensor),
            action=_time_first(action, inverse_tensor),
            reward=_time_first(reward, inverse_tensor),
            terminated=_time_first(terminated, inverse_tensor),
            task=torch.from_numpy(self._task[shard][inverse]),
            start=torch.from_numpy((self._shard_row[shard] + row)[inverse]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and the identity of the data; a few kilobytes."""
        return {"generator": self.generator.get_state(), "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue sampling, bit for bit, from a state that `state_dict` returned.

        Raises:
            UserError: the state belongs to another dataset, or to other tasks or another length.
        """
        if state["of"] != self._identity():
            raise UserError(
                f"{self.dataset.folder}: not the dataset or the tasks that the run was started "
                f"with (checksum {state['of']['checksum'][:12]})"
            )
        self.generator.set_state(state["generator"])

    def _identity(self) -> dict[str, Any]:
        return {
            "checksum": self.dataset.checksum,
            "tasks": list(self.tasks),
            "length": self.length,
        }


def _time_first(x: np.ndarray, order: Tensor) -> Tensor:
    """Return `(B, L, …)` as contiguous `(L, B, …)`, with the B entries reordered."""
    return torch.from_numpy(x).transpose(0, 1).index_select(1, order)
