"""Replay buffer of streams: sampled sequences may extend from one episode into the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc2.common.replay.ram_budget import lazy_zeros
from tdmpc2.common.replay.types import (
    Episode,
    Sequences,
    ShortEpisodesError,
    Transition,
    check_length,
    to_device,
)

_FIRST = (0.0, 1.0, 0.0)  # reward, first and terminated of the first row of an episode


class _Held(NamedTuple):
    """A finished episode: its environment and its number of rows."""

    place: int
    num_rows: int


class SequenceReplay:
    """One ring buffer of rows per environment, in the order of time.

    A row stores an observation, and the action and reward that led to it; an episode of T
    transitions occupies T + 1 rows. Sequences of L consecutive rows are sampled uniformly,
    including sequences that cross the end of an episode and those in unfinished episodes. When
    space is needed, the oldest episode is removed as a whole.

    Args:
        capacity: number of rows of all rings together.
        length: L, number of rows of a sequence.
        obs_shape, action_dim: shape of an observation, and dimension of an action.
        num_places: number of environments; their episodes must be finished in turn, 0, 1, ….
        generator: generator for sampling, on the CPU.
        device: device of the rows and of sampled batches.

    Raises:
        ValueError: a ring has fewer than L rows.
    """

    def __init__(
        self,
        capacity: int,
        length: int,
        obs_shape: tuple[int, ...],
        action_dim: int,
        *,
        num_places: int,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.length, self.num_places = length, num_places
        self.generator, self.device = generator, torch.device(device)
        self.capacity, self.ring = capacity, capacity // num_places
        if self.ring < length:
            raise ValueError(
                f"{self.ring} rows per environment are too few for sequences of {length} rows"
            )
        shape = (num_places, self.ring)
        self.obs = lazy_zeros(*shape, *obs_shape, device=self.device)
        self.action = lazy_zeros(*shape, action_dim, device=self.device)
        # Columns: reward, first, terminated.
        self.marks = lazy_zeros(*shape, 3, device=self.device)
        self._oldest = [0] * num_places  # rows ever removed
        self._end = [0] * num_places  # rows ever stored
        self._growing = [0] * num_places  # rows of the unfinished episode
        self._episodes: deque[_Held] = deque()
        self.num_added = 0  # episodes ever finished
        self._offsets = torch.arange(length)[:, None]

    @property
    def num_episodes(self) -> int:
        """Number of finished episodes in the buffer."""
        return len(self._episodes)

    @property
    def num_starts(self) -> int:
        """Number of sequences that can be sampled."""
        return sum(self._starts())

    def _starts(self) -> list[int]:
        """Return the number of sequences in each ring."""
        held = zip(self._oldest, self._end, strict=True)
        return [max(end - oldest - self.length + 1, 0) for oldest, end in held]

    def append(self, transition: Transition, place: int = 0) -> None:
        """Store the next transition of the current episode of an environment.

        Args:
            transition: transition to store; the first one after `finish` begins an episode.
            place: number of the environment.
        """
        if not self._growing[place]:
            no_action = np.zeros_like(transition.action)
            self._store(place, transition.obs[None], no_action[None], [_FIRST])
        marks = (transition.reward, 0.0, float(transition.terminated))
        self._store(place, transition.next_obs[None], transition.action[None], [marks])

    def _store(self, place: int, obs: np.ndarray, action: np.ndarray, marks: Any) -> None:
        """Store the next rows of an environment; remove the oldest episodes if needed."""
        num = len(obs)
        while self._end[place] - self._oldest[place] + num > self.ring:
            if not self._episodes:
                raise ValueError(f"an episode does not fit {self.ring} rows")
            dropped = self._episodes.popleft()
            self._oldest[dropped.place] += dropped.num_rows
        rows = (self._end[place] + torch.arange(num, device=self.device)) % self.ring
        self.obs[place, rows] = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        self.action[place, rows] = torch.as_tensor(action, dtype=torch.float32, device=self.device)
        self.marks[place, rows] = torch.as_tensor(marks, dtype=torch.float32, device=self.device)
        self._end[place] += num
        self._growing[place] += num

    def finish(self, place: int = 0) -> None:
        """End the current episode of an environment.

        Raises:
            ValueError: it is not this environment's turn, or it has no unfinished episode.
        """
        if place != self.num_added % self.num_places or not self._growing[place]:
            raise ValueError(f"environment {place} has no episode to finish now")
        self._episodes.append(_Held(place, self._growing[place]))
        self._growing[place] = 0
        self.num_added += 1

    def add(self, episode: Episode) -> None:
        """Store a finished episode of the environment whose turn it is."""
        place = self.num_added % self.num_places
        marks = np.zeros((len(episode) + 1, 3), dtype=np.float32)
        marks[0], marks[1:, 0], marks[-1, 2] = _FIRST, episode.reward, episode.terminated
        action = np.concatenate([np.zeros_like(episode.action[:1]), episode.action])
        self._store(place, episode.obs, action, marks)
        self.finish(place)

    def sample(self, batch_size: int, length: int) -> Sequences:
        """Sample sequences with replacement, on the buffer's device.

        Args:
            batch_size: B, number of sequences.
            length: number of rows; must equal the buffer's L.

        Raises:
            UserError: the length differs from L.
            ShortEpisodesError: no environment has that many rows.
        """
        check_length(length, self.length)
        bounds = torch.tensor(self._starts()).cumsum(0)
        if bounds[-1] == 0:
            raise ShortEpisodesError(
                f"no environment has {length} observations yet; use more seed_decisions"
            )
        chosen = torch.randint(int(bounds[-1]), (batch_size,), generator=self.generator)
        place = torch.searchsorted(bounds, chosen, right=True)
        begin = torch.tensor([0, *bounds[:-1].tolist()])[place]
        start = torch.tensor(self._oldest)[place] + chosen - begin
        rows = place * self.ring + (start + self._offsets) % self.ring
        rows = to_device(rows, self.device)
        reward, first, terminated = _rows_of(self.marks, rows).unbind(-1)
        first = first.clone()
        first[0] = 1.0  # the rows before a sequence are unknown
        return Sequences(
            _rows_of(self.obs, rows), _rows_of(self.action, rows), reward, first, terminated
        )

    # --- saving ----------------------------------------------------------------------

    def episodes(self, first: int) -> list[Episode]:
        """Return the finished episodes in the buffer, from number `first` of all ever added."""
        oldest, selected = self.num_added - len(self._episodes), []
        begin = list(self._oldest)
        for number, (place, num_rows) in enumerate(self._episodes, oldest):
            if number >= first:
                rows = (begin[place] + torch.arange(num_rows)) % self.ring
                selected.append(self._read(place, rows))
            begin[place] += num_rows
        return selected

    def _read(self, place: int, rows: Tensor) -> Episode:
        marks = self.marks[place, rows].cpu().numpy()
        return Episode(
            obs=self.obs[place, rows].cpu().numpy(),
            action=self.action[place, rows[1:]].cpu().numpy(),
            reward=marks[1:, 0],
            terminated=bool(marks[-1, 2]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the buffer without its episodes.

        The checkpoint store saves new episodes separately, each only once.
        """
        return {
            "generator": self.generator.get_state(),
            "num_added": self.num_added,
            "num_episodes": len(self._episodes),
        }

    def load_state_dict(self, state: dict[str, Any], episodes: Iterable[Episode]) -> None:
        """Restore a state into an empty buffer: the same sequences in the same order.

        Args:
            state: return value of `state_dict`.
            episodes: episodes of the buffer at that time, oldest first.

        Raises:
            ValueError: the buffer is not empty, or the number of episodes does not match.
        """
        if self.num_added:
            raise ValueError("only an empty buffer can be restored")
        self.num_added = oldest = state["num_added"] - state["num_episodes"]
        for episode in episodes:
            self.add(episode)
        if self.num_added != state["num_added"]:
            raise ValueError(
                f"the state has {state['num_episodes']} episodes, "
                f"{self.num_added - oldest} were given"
            )
        self.generator.set_state(state["generator"])


def _rows_of(store: Tensor, rows: Tensor) -> Tensor:
    """Return rows `(...)` of a store `(P, C, ...)`; row numbers run through all P rings."""
    flat = store.flatten(0, 1).index_select(0, rows.reshape(-1))
    return flat.view(*rows.shape, *store.shape[2:])
