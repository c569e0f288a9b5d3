"""Replay memory of streams: sequences run on from one episode into the next of an environment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc2.common.replay.types import Episode, Sequences, Transition, to_device

_FIRST = (0.0, 1.0, 0.0)  # reward, first and terminated of the row that begins an episode


class _Held(NamedTuple):
    """An episode: the stream it is part of, and its rows."""

    place: int
    num_rows: int


class SequenceReplay:
    """A ring of rows for each of several environments; row after row as they were lived through.

    A row holds what was seen, with the action and the reward that led there; an episode of T
    transitions takes T + 1. Sequences of L rows are drawn uniformly from all there are, those
    that cross the end of an episode and those of unfinished episodes included. Where memory runs
    out, the oldest episode goes, whole.

    Args:
        capacity: rows of all rings.
        length: L, rows of a sequence.
        obs_shape, action_dim: of one row.
        num_places: environments, whose episodes end in turn.
        generator: where sampling draws come from (on the CPU).
        device: where rows live and batches are built.
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
        self.ring = capacity // num_places
        if self.ring < length:
            raise ValueError(f"{self.ring} rows for each environment hold no {length} rows")
        shape = (num_places, self.ring)
        self.obs = torch.zeros(*shape, *obs_shape, device=device)
        self.action = torch.zeros(*shape, action_dim, device=device)
        # Columns: reward, first, terminated.
        self.marks = torch.zeros(*shape, 3, device=device)
        self._oldest = [0] * num_places  # rows ever dropped
        self._end = [0] * num_places  # rows ever stored
        self._growing = [0] * num_places  # rows of the episode that is being played
        self._episodes: deque[_Held] = deque()
        self.num_added = 0  # episodes ever finished
        self._offsets = torch.arange(length)[:, None]

    @property
    def num_episodes(self) -> int:
        """Finished episodes held."""
        return len(self._episodes)

    @property
    def num_starts(self) -> int:
        """Sequences that can be sampled."""
        return sum(self._starts())

    def _starts(self) -> list[int]:
        """Sequences of each ring."""
        held = zip(self._oldest, self._end, strict=True)
        return [max(end - oldest - self.length + 1, 0) for oldest, end in held]

    def append(self, transition: Transition, place: int = 0) -> None:
        """Stores the next decision of the episode that an environment plays.

        Args:
            transition: the decision; the first one after `finish` begins an episode.
            place: which environment it comes from.
        """
        if not self._growing[place]:
            nothing = np.zeros_like(transition.action)
            self._store(place, transition.obs[None], nothing[None], [_FIRST])
        marks = (transition.reward, 0.0, float(transition.terminated))
        self._store(place, transition.next_obs[None], transition.action[None], [marks])

    def _store(self, place: int, obs: np.ndarray, action: np.ndarray, marks: Any) -> None:
        """Stores the next rows of an environment."""
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
        """Ends an environment's episode.

        Raises:
            ValueError: it is not this environment's turn.
        """
        if place != self.num_added % self.num_places or not self._growing[place]:
            raise ValueError(f"environment {place} has no episode to finish now")
        self._episodes.append(_Held(place, self._growing[place]))
        self._growing[place] = 0
        self.num_added += 1

    def add(self, episode: Episode) -> None:
        """Stores a finished episode of the environment whose turn it is."""
        place = self.num_added % self.num_places
        marks = np.zeros((len(episode) + 1, 3), dtype=np.float32)
        marks[0], marks[1:, 0], marks[-1, 2] = _FIRST, episode.reward, episode.terminated
        action = np.concatenate([np.zeros_like(episode.action[:1]), episode.action])
        self._store(place, episode.obs, action, marks)
        self.finish(place)

    def sample(self, batch_size: int, length: int) -> Sequences:
        """Draws sequences with replacement, on the memory's device.

        Args:
            batch_size: B.
            length: must be the memory's own L.

        Raises:
            ValueError: if nothing of that length is stored.
        """
        if length != self.length:
            raise ValueError(f"this memory samples {self.length} rows, not {length}")
        bounds = torch.tensor(self._starts()).cumsum(0)
        if bounds[-1] == 0:
            raise ValueError(f"no environment has seen {length} observations yet")
        draws = torch.randint(int(bounds[-1]), (batch_size,), generator=self.generator)
        place = torch.searchsorted(bounds, draws, right=True)
        begin = torch.tensor([0, *bounds[:-1].tolist()])[place]
        start = torch.tensor(self._oldest)[place] + draws - begin
        rows = place * self.ring + (start + self._offsets) % self.ring
        rows = to_device(rows, self.device)
        reward, first, terminated = _rows_of(self.marks, rows).unbind(-1)
        first = first.clone()
        first[0] = 1.0  # what came before is not known
        return Sequences(
            _rows_of(self.obs, rows), _rows_of(self.action, rows), reward, first, terminated
        )

    # --- saving ----------------------------------------------------------------------

    def episodes(self, first: int) -> list[Episode]:
        """The held finished episodes from the `first`-th ever added on."""
        oldest, found = self.num_added - len(self._episodes), []
        begin = list(self._oldest)
        for number, (place, num_rows) in enumerate(self._episodes, oldest):
            if number >= first:
                rows = (begin[place] + torch.arange(num_rows)) % self.ring
                found.append(self._read(place, rows))
            begin[place] += num_rows
        return found

    def _read(self, place: int, rows: Tensor) -> Episode:
        marks = self.marks[place, rows].cpu().numpy()
        return Episode(
            obs=self.obs[place, rows].cpu().numpy(),
            action=self.action[place, rows[1:]].cpu().numpy(),
            reward=marks[1:, 0],
            terminated=bool(marks[-1, 2]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the episodes themselves, which are saved apart as they come."""
        return {
            "generator": self.generator.get_state(),
            "num_added": self.num_added,
            "num_episodes": len(self._episodes),
        }

    def load_state_dict(self, state: dict[str, Any], episodes: Iterable[Episode]) -> None:
        """Restores an empty memory: the same sequences in the same order.

        Args:
            state: what `state_dict` returned.
            episodes: the episodes held then, oldest first.
        """
        if self.num_added:
            raise ValueError("only an empty memory can be restored")
        self.num_added = oldest = state["num_added"] - state["num_episodes"]
        for episode in episodes:
            self.add(episode)
        if self.num_added != state["num_added"]:
            raise ValueError(
                f"{state['num_episodes']} episodes were held, {self.num_added - oldest} were given"
            )
        self.generator.set_state(state["generator"])


def _rows_of(store: Tensor, rows: Tensor) -> Tensor:
    """Rows `(...)` of a store `(P, C, ...)`, counted through all of its rings."""
    flat = store.flatten(0, 1).index_select(0, rows.reshape(-1))
    return flat.view(*rows.shape, *store.shape[2:])
