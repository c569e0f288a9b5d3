"""A point mass in NumPy, which a small world model learns within seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tdmpc2.envs.base import ControlStep, DecisionEnv
from tdmpc2.envs.tasks import Task

_START_RADIUS = (0.6, 0.9)
_MAX_SPEED = 0.2  # arena half-widths per decision
_INERTIA = 0.3  # fraction of the velocity that is kept
_REWARD_WIDTH = 0.2  # distance at which the reward is one half
_SUCCESS_RADIUS = 0.1


class PointMass(DecisionEnv):
    """A point with inertia on the square [-1, 1]^2; the goal is to reach the origin and stay there.

    Each decision, with position p, velocity v and action a:

        v <- 0.3 v + 0.7 * 0.2 a,    p <- p + v,    reward = 1 / (1 + (|p| / 0.2)^2)

    Episodes start at rest at a random angle, 0.6 to 0.9 from the origin, where zero actions
    earn at most a tenth of the maximum reward. The observation is `(p, v)`. At a wall the point
    stops; in the episodic task the episode terminates there with reward 0. Success: |p| < 0.1.

    Args:
        task: a row of the toy domain.
        seed: seed of the initial positions.
        render: not used; the task has no rendering.
    """

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        super().__init__(task)
        self._rng = np.random.default_rng(seed)
        self._position = np.zeros(2)
        self._velocity = np.zeros(2)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the NumPy generator, a nested dict of names and integers."""
        return dict(self._rng.bit_generator.state)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        self._rng.bit_generator.state = state

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def _begin_episode(self) -> np.ndarray:
        angle = self._rng.uniform(0, 2 * np.pi)
        radius = self._rng.uniform(*_START_RADIUS)
        self._position = radius * np.array([np.cos(angle), np.sin(angle)])
        self._velocity = np.zeros(2)
        return self._state()

    def _control_step(self, action: np.ndarray) -> ControlStep:
        self._velocity = _INERTIA * self._velocity + (1 - _INERTIA) * _MAX_SPEED * action
        self._position = self._position + self._velocity
        outside = np.abs(self._position) > 1
        terminated = bool(self.task.episodic and outside.any())
        self._velocity = np.where(outside, 0.0, self._velocity)
        self._position = np.clip(self._position, -1, 1)
        distance = float(np.linalg.norm(self._position))
        reward = 0.0 if terminated else 1 / (1 + (distance / _REWARD_WIDTH) ** 2)
        return ControlStep(self._state(), reward, terminated, float(distance < _SUCCESS_RADIUS))

    def _state(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity])
