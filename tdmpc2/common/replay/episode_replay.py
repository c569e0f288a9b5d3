"""Replay memory: whole episodes in preallocated rows, sub-trajectories sampled by index."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc2.common.replay.frame_stack import FrameRows
from tdmpc2.common.replay.sum_tree import SumTree
from tdmpc2.common.replay.types import Batch, Episode, Transition, to_device


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take up memory only as they are overwritten, on the CPU.

    `torch.zeros` writes to every page; a memory of images would take all of its
    gigabytes on the first day.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(np.zeros(shape, kind))


def _rows_of(store: Tensor, rows: Tensor) -> Tensor:
    """`store[rows]`, in half the time."""
    return store.index_select(0, rows.reshape(-1)).view(*rows.shape, *store.shape[1:])


class _Stored(NamedTuple):
    """Where an episode lies: first row, transitions, starts that can be sampled."""

    row: int
    length: int
    num_starts: int


class Replay:
    """Ring of rows holding the newest episodes; sampling never scans it.

    An episode of T transitions takes T + 1 rows: row t holds obs_t and the action and reward
    that follow it. The rows where a sub-trajectory of L transitions can start are listed in
    a ring of their own, oldest first, so that a uniform draw is one indexed read, at any
    fill and for episodes of any length (uniform over starts; ALGORITHMS: for episodes of
    equal length the same as a uniform episode followed by a uniform crop). The oldest
    episodes make room for new ones, whole.

    Args:
        capacity: rows.
        length: L, transitions of a sub-trajectory.
        obs_shape, action_dim: of one row.
        obs_dtype: `torch.float32`, or `torch.uint8` for pixels.
        frame_stack: frames in an observation `(frame_stack · c, H, W)`, oldest first; each is
            kept once, and observations are put together when they are sampled.
        generator: where sampling draws come from (on the CPU).
        device: where rows live and batches are built.
        num_tasks: batches carry task indices if greater than 1.
        priorities: `(alpha, beta)` of prioritized sampling; uniform if None.
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
        self.obs = _zeros((capacity, *row_shape), obs_dtype, self.device)
        self.action = torch.zeros(capacity, action_dim, device=device)
        self.reward = torch.zeros(capacity, device=device)
        self.terminated = torch.zeros(capacity, device=device)
        self.task = torch.zeros(capacity, dtype=torch.long, device=device)
        self._starts = torch.zeros(capacity, dtype=torch.long, device=device)
        self._first_start = 0  # where the list of starts begins in its ring
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
        """Episodes held."""
        return len(self._episodes)

    @property
    def num_transitions(self) -> int:
        """Transitions held."""
        num_episodes = len(self._episodes) + (self._growing is not None)
        return self.capacity - self._free - num_episodes

    @property
    def num_starts(self) -> int:
        """Sub-trajectories that can be sampled."""
        return self._num_starts

    def add(self, episode: Episode) -> None:
        """Stores a finished episode, dropping the oldest ones where space is needed.

        Raises:
            ValueError: if the episode is longer than the whole replay buffer.
        """
        num_rows = len(episode) + 1
        assert self._growing is None, "an episode is growing in this memory"
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
        # The last row belongs to no transition; NaN would show at once if it were sampled.
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
        """Stores the next decision of the episode that is being played; it can be sampled at once.

        Row by row the same as `add` at the end of the episode.

        Args:
            transition: the decision; the first one after `finish` begins an episode.
            place: which of several environments it comes from; there is but one here.

        Raises:
            ValueError: the episode is longer than the buffer, or from a second environment.
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
        """The next row, with an observation that nothing follows yet."""
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
        """Ends the episode that `append` has stored so far."""
        if self._growing is None or place:
            raise ValueError("no episode is growing there")
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
        """Draws sub-trajectories with replacement, on the memory's device.

        Args:
            batch_size: B.
            length: must be the memory's own L.

        Raises:
            ValueError: if nothing of that length is stored.
        """
        if length != self.length:
            raise ValueError(f"this memory samples {self.length} transitions, not {length}")
        if self._num_starts == 0:
            raise ValueError(f"no episode of {length} or more transitions has been added yet")
        weight = None
        if self._tree is not None:
            index, weight = self._draw_prioritized(batch_size)
        else:
            draws = torch.randint(self._num_starts, (batch_size,), generator=self.generator)
            places = to_device(draws, self.device).add_(self._first_start).remainder_(self.capacity)
            index = self._starts.index_select(0, places)
        return self.batch_at(index, weight)

    def batch_at(self, index: Tensor, weight: Tensor | None = None) -> Batch:
        """The sub-trajectories that start at given rows.

        Args:
            index: `(B,)` rows, on the replay buffer's device.
            weight: `(B,)` importance weights, or None.
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
        """What was seen at rows `(L + 1, B)`."""
        if self._frames is None:
            return _rows_of(self.obs, rows)
        return _rows_of(self.obs, self._frames.of(rows)).flatten(2, 3)

    def _draw_prioritized(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Rows drawn in proportion to priority, and their importance weights."""
        assert self._tree is not None
        uniform = torch.rand(batch_size, generator=self.generator, dtype=torch.float64).numpy()
        rows = self._tree.find(uniform * self._tree.total)
        return to_device(rows, self.device), self.importance_weights(rows)

    def importance_weights(self, index: np.ndarray) -> Tensor:
        """Weights (N·p)^−β / max of sampled rows with probabilities p (PER, Sec. 3.4)."""
        assert self._tree is not None, "this memory samples uniformly"
        probability = self._tree.get(index) / self._tree.total
        weight = (self._num_starts * probability) ** -self.beta
        weight = (weight / weight.max()).astype(np.float32)
        return to_device(weight, self.device)

    def update_priorities(self, index: Tensor, error: Tensor) -> None:
        """Sets the priorities of rows to (error + 1e-6)^α; new ones get the largest there is."""
        assert self._tree is not None, "this memory samples uniformly"
        priority = (error.double().cpu().numpy() + 1e-6) ** self.alpha
        self._tree.set(index.cpu().numpy(), priority)

    # --- saving ----------------------------------------------------------------------

    def episodes(self, first: int) -> list[Episode]:
        """The held episodes from the `first`-th ever added on."""
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
        """Everything but the episodes themselves, which are saved apart as they come."""
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
        """Restores an empty memory: the same rows in the same places.

        Args:
            state: what `state_dict` returned.
            episodes: the episodes held then, oldest first.
        """
        if self.num_added:
            raise ValueError("only an empty memory can be restored")
        self._next_row = state["first_row"]
        for episode in episodes:
            self.add(episode)
        if len(self._episodes) != state["num_episodes"]:
            raise ValueError(
                f"{state['num_episodes']} episodes were held, {len(self._episodes)} were given"
            )
        self.num_added = state["num_added"]
        self.generator.set_state(state["generator"])
        if self._tree is not None:
            self._tree.load(state["priorities"].numpy())
