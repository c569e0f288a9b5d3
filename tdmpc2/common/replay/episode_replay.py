"""Replay buffer of episodes; sub-trajectories are sampled uniformly or by priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc2.common.replay.frame_stack import FrameRows
from tdmpc2.common.replay.ram_budget import lazy_zeros
from tdmpc2.common.replay.sum_tree import SumTree
from tdmpc2.common.replay.types import (
    Batch,
    Episode,
    ShortEpisodesError,
    Transition,
    check_length,
    to_device,
)


def _rows_of(store: Tensor, rows: Tensor) -> Tensor:
    """Return `store[rows]`; `index_select` takes half the time of indexing."""
    return store.index_select(0, rows.reshape(-1)).view(*rows.shape, *store.shape[1:])


class _Stored(NamedTuple):
    """Location of a stored episode: first row, number of transitions, number of valid starts."""

    row: int
    length: int
    num_starts: int


class Replay:
    """Ring buffer of rows with the newest episodes.

    An episode of T transitions occupies T + 1 rows: row t stores obs_t and the action and reward
    that follow it. When space is needed, the oldest episodes are removed as a whole.

    A start is a row at which a sub-trajectory of L transitions within one episode begins. The
    starts are listed in a second ring, oldest first, so that a uniform sample is one indexed read
    for any fill level and any episode lengths. Sampling is uniform over starts. For episodes of
    equal length this equals a uniform episode followed by a uniform crop.

    Args:
        capacity: number of rows.
        length: L, number of transitions of a sub-trajectory.
        obs_shape: shape of an observation.
        action_dim: size of an action.
        obs_dtype: `torch.float32`, or `torch.uint8` for pixels.
        frame_stack: number of frames in an observation `(frame_stack · c, H, W)`, oldest first.
            Each frame is stored once; observations are assembled when they are sampled.
        generator: generator for sampling, on the CPU.
        device: device of the rows and of sampled batches.
        num_tasks: batches contain task indices if greater than 1.
        priorities: `(alpha, beta)` of prioritized sampling; None for uniform sampling.

    Raises:
        ValueError: the channels of `obs_shape` cannot be divided into `frame_stack` frames.
    """

    def __init__(
        self,
        capacity: int,
        length: int,
        obs_shape: tuple[int, ...],
        action_dim: int,
        *,
        generator: Generator,
        obs_dtype: torch.dtype = torch.float32,
        frame_stack: int = 1,
        device: torch.device | str = "cpu",
        num_tasks: int = 1,
        priorities: tuple[float, float] | None = None,
    ) -> None:
        self.capacity, self.length = capacity, length
        self.generator, self.device = generator, torch.device(device)
        self.num_tasks = num_tasks
        if obs_shape[0] % frame_stack:
            raise ValueError(f"{obs_shape[0]} channels are not {frame_stack} equal frames")
        self._channels = obs_shape[0] // frame_stack
        row_shape = (self._channels, *obs_shape[1:])
        self._frames = FrameRows(capacity, frame_stack, self.device) if frame_stack > 1 else None
        self.obs = lazy_zeros(capacity, *row_shape, dtype=obs_dtype, device=self.device)
        self.action = lazy_zeros(capacity, action_dim, device=self.device)
        self.reward = lazy_zeros(capacity, device=self.device)
        self.terminated = lazy_zeros(capacity, device=self.device)
        self.task = lazy_zeros(capacity, dtype=torch.long, device=self.device)
        self._starts = lazy_zeros(capacity, dtype=torch.long, device=self.device)
        self._first_start = 0  # position of the oldest start in the ring of starts
        self._num_starts = 0
        self._episodes: deque[_Stored] = deque()
        self._growing: _Stored | None = None
        self._next_row = 0
        self._free = capacity
        self.num_added = 0  # episodes ever added
        self._offsets = torch.arange(length + 1, device=device)[:, None]
        self._tree: SumTree | None = None
        if priorities is not None:
            self.alpha, self.beta = priorities
            self._tree = SumTree(capacity)

    @property
    def num_episodes(self) -> int:
        """Number of finished episodes in the buffer."""
        return len(self._episodes)

    @property
    def num_transitions(self) -> int:
        """Number of transitions in the buffer."""
        num_episodes = len(self._episodes) + (self._growing is not None)
        return self.capacity - self._free - num_episodes

    @property
    def num_starts(self) -> int:
        """Number of sub-trajectories that can be sampled."""
        return self._num_starts

    def add(self, episode: Episode) -> None:
        """Store a finished episode; remove the oldest ones if space is needed.

        Raises:
            ValueError: the episode is longer than the whole buffer.
        """
        num_rows = len(episode) + 1
        assert self._growing is None, "an unfinished episode is in this buffer"
        if num_rows > self.capacity:
            raise ValueError(f"an episode of {num_rows} rows does not fit {self.capacity} rows")
        while self._free < num_rows:
            self._drop_oldest()
        rows = (self._next_row + torch.arange(num_rows, device=self.device)) % self.capacity
        self.obs[rows] = torch.as_tensor(episode.obs[:, -self._channels :], device=self.device)
        if self._frames is not None:
            self._frames.add(rows)
        self.action[rows[:-1]] = torch.as_tensor(episode.action, device=self.device)
        reward = torch.as_tensor(episode.reward, dtype=torch.float32, device=self.device)
        self.reward[rows[:-1]] = reward
        # The last row has no action and reward; NaN would reveal it if it were sampled.
        self.action[rows[-1]], self.reward[rows[-1]] = torch.nan, torch.nan
        self.terminated[rows] = 0.0
        self.terminated[rows[-2]] = float(episode.terminated)
        self.task[rows] = episode.task

        num_starts = max(len(episode) - self.length + 1, 0)
        self._append_starts(rows[:num_starts])
        self._episodes.append(_Stored(self._next_row, len(episode), num_starts))
        self._next_row = (self._next_row + num_rows) % self.capacity
        self._free -= num_rows
        self.num_added += 1

    def append(self, transition: Transition, place: int = 0) -> None:
        """Store the next transition of the current episode, which can be sampled at once.

        The rows are the same as those of `add` at the end of the episode.

        Args:
            transition: transition to store; the first one after `finish` begins an episode.
            place: number of the environment; this buffer supports one environment only, 0.

        Raises:
            ValueError: the episode is longer than the buffer, `place` is not 0, or observations
                are stacked frames.
        """
        if place or self._frames is not None:
            raise ValueError("only states of one environment can be stored one by one")
        if self._growing is None:
            self._growing = _Stored(self._take_row(transition.obs), 0, 0)
        first, length, num_starts = self._growing
        row = (first + length) % self.capacity
        after = self._take_row(transition.next_obs)
        self.action[row] = torch.as_tensor(transition.action, device=self.device)
        self.reward[row] = transition.reward
        self.terminated[row] = float(transition.terminated)
        length += 1
        if length >= self.length:
            start = (after - self.length) % self.capacity
            self._append_starts(torch.tensor([start], device=self.device))
            num_starts += 1
        self._growing = _Stored(first, length, num_starts)

    def _take_row(self, obs: np.ndarray) -> int:
        """Store an observation in the next row, without action and reward; return the row."""
        while self._free < 1:
            if not self._episodes:
                raise ValueError(f"an episode does not fit {self.capacity} rows")
            self._drop_oldest()
        row = self._next_row
        self.obs[row] = torch.as_tensor(obs, device=self.device)
        self.action[row], self.reward[row] = torch.nan, torch.nan
        self.terminated[row], self.task[row] = 0.0, 0
        self._next_row = (row + 1) % self.capacity
        self._free -= 1
        return row

    def finish(self, place: int = 0) -> None:
        """End the episode whose transitions `append` has stored.

        Raises:
            ValueError: there is no such episode.
        """
        if self._growing is None or place:
            raise ValueError(f"environment {place} has no unfinished episode")
        self._episodes.append(self._growing)
        self._growing = None
        self.num_added += 1

    def _append_starts(self, rows: Tensor) -> None:
        end = self._first_start + self._num_starts
        places = (end + torch.arange(len(rows), device=self.device)) % self.capacity
        self._starts[places] = rows
        self._num_starts += len(rows)
        if self._tree is not None:
            priority = self._tree.largest or 1.0
            self._tree.set(rows.cpu().numpy(), np.full(len(rows), priority))

    def _drop_oldest(self) -> None:
        oldest = self._episodes.popleft()
        if self._tree is not None:
            rows = (oldest.row + np.arange(oldest.num_starts)) % self.capacity
            self._tree.set(rows, np.zeros(len(rows)))
        self._first_start = (self._first_start + oldest.num_starts) % self.capacity
        self._num_starts -= oldest.num_starts
        self._free += oldest.length + 1

    def sample(self, batch_size: int, length: int) -> Batch:
        """Sample sub-trajectories with replacement, on the buffer's device.

        Args:
            batch_size: B, number of sub-trajectories.
            length: number of transitions; must equal the buffer's L.

        Raises:
            ShortEpisodesError: no stored episode is that long.
            UserError: the length differs from L.
        """
        check_length(length, self.length)
        if self._tree is None:
            return self.gather(self.draw(batch_size))
        self._check_starts()
        return self.batch_at(*self._sample_prioritized(batch_size))

    def draw(self, batch_size: int) -> Tensor:
        """Choose starts uniformly, with replacement; return their places `(B,)` for `gather`.

        Raises:
            ShortEpisodesError: no stored episode is long enough.
            ValueError: the buffer samples by priority.
        """
        self._check_starts()
        if self._tree is not None:
            raise ValueError("this buffer samples by priority")
        chosen = torch.randint(self._num_starts, (batch_size,), generator=self.generator)
        places = chosen.add_(self._first_start).remainder_(self.capacity)
        return to_device(places, self.device)

    def gather(self, places: Tensor) -> Batch:
        """Return the sub-trajectories of `draw`; a function of tensors only."""
        return self.batch_at(self._starts.index_select(0, places))

    def _check_starts(self) -> None:
        if self._num_starts == 0:
            raise ShortEpisodesError(
                f"no episode of {self.length} or more transitions has been added yet; use a "
                "smaller horizon (own methods: replay_length), or let episodes last longer"
            )

    def batch_at(self, index: Tensor, weight: Tensor | None = None) -> Batch:
        """Return the sub-trajectories that start at given rows.

        Args:
            index: start rows `(B,)`, on the buffer's device.
            weight: importance weights `(B,)`, or None.
        """
        rows = (index + self._offsets).remainder_(self.capacity)
        return Batch(
            obs=self._observations(rows),
            action=_rows_of(self.action, rows[:-1]),
            reward=_rows_of(self.reward, rows[:-1]),
            terminated=_rows_of(self.terminated, rows[:-1]),
            task=self.task.index_select(0, index) if self.num_tasks > 1 else None,
            weight=weight,
            start=index,
        )

    def _observations(self, rows: Tensor) -> Tensor:
        """Return the observations of rows `(L + 1, B)`."""
        if self._frames is None:
            return _rows_of(self.obs, rows)
        return _rows_of(self.obs, self._frames.of(rows)).flatten(2, 3)

    def _sample_prioritized(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Sample start rows in proportion to priority; return them and their importance weights."""
        assert self._tree is not None
        uniform = torch.rand(batch_size, generator=self.generator, dtype=torch.float64).numpy()
        rows = self._tree.find(uniform * self._tree.total)
        return to_device(rows, self.device), self.importance_weights(rows)

    def importance_weights(self, index: np.ndarray) -> Tensor:
        """Return the importance weights w_i = (N·p_i)^−β / max_j w_j of sampled start rows.

        p_i is the sampling probability of row i and N the number of starts (prioritized experience
        replay, Section 3.4).

        Args:
            index: sampled start rows `(B,)`.
        """
        assert self._tree is not None, "this buffer samples uniformly"
        probability = self._tree.get(index) / self._tree.total
        weight = (self._num_starts * probability) ** -self.beta
        weight = (weight / weight.max()).astype(np.float32)
        return to_device(weight, self.device)

    def update_priorities(self, index: Tensor, error: Tensor) -> None:
        """Set the priorities of start rows to (error + 1e-6)^α.

        New starts have the largest priority in the buffer, or 1 if there is none.

        Args:
            index: start rows `(B,)`, e.g. `Batch.start`.
            error: absolute errors `(B,)`.
        """
        assert self._tree is not None, "this buffer samples uniformly"
        priority = (error.double().cpu().numpy() + 1e-6) ** self.alpha
        self._tree.set(index.cpu().numpy(), priority)

    # --- saving ----------------------------------------------------------------------

    def episodes(self, first: int) -> list[Episode]:
        """Return the episodes in the buffer, from number `first` of all episodes ever added."""
        oldest = self.num_added - len(self._episodes)
        held = list(self._episodes)[max(first - oldest, 0) :]
        return [self._read(stored) for stored in held]

    def _read(self, stored: _Stored) -> Episode:
        rows = (stored.row + torch.arange(stored.length + 1, device=self.device)) % self.capacity
        return Episode(
            obs=self.obs[rows].cpu().numpy(),
            action=self.action[rows[:-1]].cpu().numpy(),
            reward=self.reward[rows[:-1]].cpu().numpy(),
            terminated=bool(self.terminated[rows[-2]]),
            task=int(self.task[rows[0]]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the buffer without its episodes.

        The checkpoint store saves new episodes separately, each only once.
        """
        state: dict[str, Any] = {
            "generator": self.generator.get_state(),
            "num_added": self.num_added,
            "num_episodes": len(self._episodes),
            "first_row": self._episodes[0].row if self._episodes else self._next_row,
        }
        if self._tree is not None:
            state["priorities"] = torch.from_numpy(self._tree.leaves())
        return state

    def load_state_dict(self, state: dict[str, Any], episodes: Iterable[Episode]) -> None:
        """Restore a state into an empty buffer; every episode gets its previous rows.

        Args:
            state: return value of `state_dict`.
            episodes: episodes of the buffer at that time, oldest first.

        Raises:
            ValueError: the buffer is not empty, or the number of episodes does not match.
        """
        if self.num_added:
            raise ValueError("only an empty buffer can be restored")
        self._next_row = state["first_row"]
        for episode in episodes:
            self.add(episode)
        if len(self._episodes) != state["num_episodes"]:
            raise ValueError(
                f"the state has {state['num_episodes']} episodes, {len(self._episodes)} were given"
            )
        self.num_added = state["num_added"]
        self.generator.set_state(state["generator"])
        if self._tree is not None:
            self._tree.load(state["priorities"].numpy())
