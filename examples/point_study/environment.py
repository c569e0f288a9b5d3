"""A point that must reach the middle of a line; importing this module registers it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Line(gymnasium.Env):
    """The action is the velocity of the point; the reward is 1 minus its distance from 0."""

    observation_space = Box(-1.0, 1.0, (1,))
    action_space = Box(-0.2, 0.2, (1,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Place the point at random."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1)
        return np.array([self.position], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the point; it is successful within 0.1 of the middle."""
        self.position = float(np.clip(self.position + action[0], -1, 1))
        info = {"success": abs(self.position) < 0.1}
        return np.array([self.position], np.float32), 1 - abs(self.position), False, False, info


gymnasium.register("Line-v0", Line, max_episode_steps=50)
