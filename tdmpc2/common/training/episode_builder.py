"""Collects the transitions of a running episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from tdmpc2.common.replay.types import Episode, Transition


class Play:
    """A running episode and its transitions.

    Args:
        obs: first observation `(*obs_shape,)`.

    Attributes:
        obs: newest observation.
        done: whether the episode has ended.
        info: `info` of the newest step of the environment.
    """

    def __init__(self, obs: np.ndarray) -> None:
        self.obs = obs.copy()  # an environment may use its array again
        self.done = False
        self.info: dict[str, Any] = {}
        self._rows: list[Transition] = []

    def __len__(self) -> int:
        """Return the number of decisions so far."""
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
        """Add the result of one decision and return it as a transition.

        Args:
            action: action `(A,)` of the decision.
            next_obs: observation `(*obs_shape,)` after it.
            reward: reward, summed over the action repeat.
            terminated: whether the task ended the episode.
            truncated: whether the time limit ended the episode.
            info: `info` of the environment.
        """
        next_obs = next_obs.copy()
        row = Transition(self.obs, action.copy(), float(reward), next_obs, terminated)
        self._rows.append(row)
        self.obs, self.info, self.done = next_obs, info, terminated or truncated
        return row

    @property
    def reward_sum(self) -> float:
        """Undiscounted return so far."""
        return float(np.array([row.reward for row in self._rows], dtype=np.float32).sum())

    def episode(self) -> Episode:
        """Return the finished episode in the form that replay buffers store."""
        return Episode(
            obs=np.stack([*(row.obs for row in self._rows), self.obs]),
            action=np.stack([row.action for row in self._rows]),
            reward=np.array([row.reward for row in self._rows], dtype=np.float32),
            terminated=self._rows[-1].terminated,
        )
