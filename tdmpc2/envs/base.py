"""What every adapter shares: spaces, the decision clock, action repeat, action checks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import Task

FRAME_SIZE = 384
"""Height and width of a rendered frame, in pixels."""


class ControlStep(NamedTuple):
    """Outcome of one control step of a simulator.

    Attributes:
        obs: flat observation `(O,)`.
        reward: reward of this control step alone.
        terminated: whether the task ended by itself (not by its time limit).
        success: 1.0 where the task counts as solved after this step, else 0.0.
    """

    obs: np.ndarray
    reward: float
    terminated: bool
    success: float


class DecisionEnv(TaskEnv):
    """A `TaskEnv` out of four hooks that know one simulator.

    A subclass gives `_seed`, `_begin_episode`, `_control_step` and the two
    `generator_state` methods; this class turns control steps into decisions.
    """

    def __init__(self, task: Task) -> None:
        """Sets the spaces and the clock of `task`."""
        self.task = task
        self.action_repeat = task.action_repeat
        self.episode_length = task.episode_length
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (task.obs_dim,), dtype=np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (task.action_dim,), dtype=np.float32)
        self._decisions_left = 0
        self._success_ever = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: re-seeds the environment's generator first; None goes on drawing from it.
            options: not used.

        Returns:
            The first observation `(O,)` float32, and an info as of `step`, both entries 0.
        """
        # gymnasium's own generator (`np_random`) stays unused: an environment has one.
        if seed is not None:
            self._seed(seed)
        self._decisions_left, self._success_ever = self.episode_length, 0.0
        return self._as_observation(self._begin_episode()), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one decision: `action_repeat` control steps, rewards summed.

        Args:
            action: `(A,)` in [-1, 1]; what lies beyond counts as the bound.

        Returns:
            Observation `(O,)` float32, reward, terminated, truncated, and an info:
            `success` of the last control step, and `success_ever`, whether any control
            step of the episode so far was a success; both 0.0 or 1.0.

        Raises:
            RuntimeError: the episode is over or `reset` was never called.
            ValueError: the action has another shape or is not finite.
        """
        if self._decisions_left == 0:
            raise RuntimeError(f"{self.task.name}: step() outside an episode; call reset() first")
        action = self._checked(action)
        total = 0.0
        for _ in range(self.action_repeat):
            outcome = self._control_step(action)
            total += outcome.reward
            self._success_ever = max(self._success_ever, outcome.success)
            if outcome.terminated:
                break
        self._decisions_left = 0 if outcome.terminated else self._decisions_left - 1
        truncated = self._decisions_left == 0 and not outcome.terminated
        info = self._info(outcome.success)
        return self._as_observation(outcome.obs), total, outcome.terminated, truncated, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The scene as it is, `(FRAME_SIZE, FRAME_SIZE, 3)` uint8.

        Raises:
            UserError: this domain cannot be rendered.
        """
        raise UserError(f"{self.task.name}: the {self.task.domain} domain cannot be rendered")

    def _info(self, success: float) -> dict[str, Any]:
        return {"success": float(success), "success_ever": float(self._success_ever)}

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            # MuJoCo would broadcast a smaller action silently.
            raise ValueError(
                f"{self.task.name}: action has shape {action.shape}, "
                f"expected {self.action_space.shape}"
            )
        if not np.isfinite(action).all():
            raise ValueError(f"{self.task.name}: action is not finite: {action}")
        return action.clip(-1.0, 1.0)

    def _as_observation(self, obs: np.ndarray) -> np.ndarray:
        obs = obs.astype(np.float32)
        if obs.shape != self.observation_space.shape:
            raise RuntimeError(
                f"{self.task.name}: the simulator observes {obs.shape}, "
                f"the task table says {self.observation_space.shape}"
            )
        return obs

    @abstractmethod
    def _seed(self, seed: int) -> None:
        """Re-seeds the one generator."""

    @abstractmethod
    def _begin_episode(self) -> np.ndarray:
        """Resets the simulator and returns the first observation `(O,)`."""

    @abstractmethod
    def _control_step(self, action: np.ndarray) -> ControlStep:
        """Advances the simulator by one control step with `action (A,)` float64 in [-1, 1]."""


class TaskWrapper(TaskEnv):
    """A task seen or steered in another shape; clock, pictures and generator are the task's own.

    Args:
        env: the task.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.task: Task = env.task
        self.action_repeat = env.action_repeat
        self.episode_length = env.episode_length
        self.action_space = env.action_space

    def render(self) -> np.ndarray:  # type: ignore[override]
        """See `DecisionEnv.render`."""
        return self.env.render()

    def close(self) -> None:
        """Ends the task's environment."""
        self.env.close()

    def generator_state(self) -> Any:
        """State of the task's generator."""
        return self.env.generator_state()

    def set_generator_state(self, state: Any) -> None:
        """Restores what `generator_state` returned."""
        self.env.set_generator_state(state)
