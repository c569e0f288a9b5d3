"""An episode as it is played."""

from __future__ import annotations

from typing import Any

import numpy as np

from tdmpc2.common.replay.types import Episode, Transition


class Play:
    """One episode, from its first observation on.

    Args:
        obs: the first observation.

    Attributes:
        obs: the newest one.
        done: whether the episode is over.
        info: what the environment said last.
    """

    def __init__(self, obs: np.ndarray) -> None:
        self.obs = obs
        self.done = False
        self.info: dict[str, Any] = {}
        self._rows: list[Transition] = []

    def __len__(self) -> int:
        """Decisions so far."""
        return len(self._rows)

    def add(
        self,
        action: np.ndarray,
        next_obs: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
    ) -> Transition:
        """Notes what came of a decision."""
        row = Transition(self.obs, action, float(reward), next_obs, terminated)
        self._rows.append(row)
        self.obs, self.info, self.done = next_obs, info, terminated or truncated
        return row

    @property
    def reward_sum(self) -> float:
        """Return so far."""
        return float(np.array([row.reward for row in self._rows], dtype=np.float32).sum())

    def episode(self) -> Episode:
        """What has been played, to be kept."""
        return Episode(
            obs=np.stack([*(row.obs for row in self._rows), self.obs]),
            action=np.stack([row.action for row in self._rows]),
            reward=np.array([row.reward for row in self._rows], dtype=np.float32),
            terminated=self._rows[-1].terminated,
        )
