"""Base classes of the adapters: spaces, time limit, action repeat and action checks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.returned import ReturnedError, flag, reward_of, success_of, vector
from tdmpc2.envs.tasks import Task

FRAME_SIZE = 384
"""Height and width of a rendered frame, in pixels."""


class ControlStep(NamedTuple):
    """Result of one control step of a simulator.

    Attributes:
        obs: flat observation `(O,)`.
        reward: reward of this control step alone.
        terminated: whether the task itself ended the episode (not the time limit).
        success: 1.0 if the task counts as solved after this step, else 0.0.
        truncated: whether the simulator cut the episode off before the time limit of the task.
    """

    obs: np.ndarray
    reward: float
    terminated: bool
    success: float
    truncated: bool = False


def spaces_of(task: Task) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Return the spaces of states and actions of a task."""
    states = gymnasium.spaces.Box(-np.inf, np.inf, (task.obs_dim,), dtype=np.float32)
    return states, gymnasium.spaces.Box(-1.0, 1.0, (task.action_dim,), dtype=np.float32)


class DecisionEnv(TaskEnv):
    """Base class of a `TaskEnv` for one simulator.

    A subclass implements `_seed`, `_begin_episode`, `_control_step` and the two
    `generator_state` methods for its simulator. This class adds action repeat, the time
    limit and the checks.

    Args:
        task: row of the task table; it sets the spaces, action repeat and episode length.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.action_repeat = task.action_repeat
        self.episode_length = task.episode_length
        self.observation_space, self.action_space = spaces_of(task)
        self._decisions_left = 0
        self._success_ever = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: new seed of the environment's generator; None keeps the generator's state.
            options: not used.

        Returns:
            The first observation `(O,)` float32, and an info as of `step`, both entries 0.
        """
        # gymnasium's `np_random` is not used: an environment has exactly one generator.
        if seed is not None:
            self._seed(seed)
        self._decisions_left, self._success_ever = self.episode_length, 0.0
        return self._as_observation(self._begin_episode()), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one decision: `action_repeat` control steps, whose rewards are summed.

        Args:
            action: `(A,)`; clipped to [-1, 1].

        Returns:
            Observation `(O,)` float32, reward, terminated, truncated, and an info with
            `success` of the last control step, and `success_ever`, the maximum of `success`
            over the control steps of the episode so far; both 0.0 or 1.0.

        Raises:
            RuntimeError: the episode is over or `reset` was never called.
            UserError: the simulator returned an impossible value.
            ValueError: the action has another shape or is not finite.
        """
        if self._decisions_left == 0:
            raise RuntimeError(f"{self.task.name}: step() outside an episode; call reset() first")
        action = self._checked(action)
        total = 0.0
        for _ in range(self.action_repeat):
            # A copy, since a simulator may change the action that it is given.
            outcome = self._checked_outcome(self._control_step(action.copy()))
            total += outcome.reward
            self._success_ever = max(self._success_ever, outcome.success)
            if outcome.terminated or outcome.truncated:
                break
        ended = outcome.terminated or outcome.truncated
        self._decisions_left = 0 if ended else self._decisions_left - 1
        truncated = self._decisions_left == 0 and not outcome.terminated
        info = self._info(outcome.success)
        return self._as_observation(outcome.obs), total, outcome.terminated, truncated, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the current scene, `(FRAME_SIZE, FRAME_SIZE, 3)` uint8.

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
        """Return an observation as a new array in float32, after checking it."""
        try:
            return vector(obs, self.observation_space.shape or ())
        except ReturnedError as error:
            raise self._fault(error) from None

    def _checked_outcome(self, outcome: ControlStep) -> ControlStep:
        """Return the result of a control step with values of the right types, except `obs`."""
        try:
            obs, reward, terminated, success, truncated = outcome
            return ControlStep(
                obs,
                reward_of(reward),
                flag(terminated, "terminated"),
                success_of(success),
                flag(truncated, "truncated"),
            )
        except ReturnedError as error:
            raise self._fault(error) from None

    def _fault(self, error: ReturnedError) -> UserError:
        return UserError(
            f"task '{self.task.name}': its simulator returned {error}; correct "
            f"{type(self).__name__} or the task's row, then run again"
        )

    @abstractmethod
    def _seed(self, seed: int) -> None:
        """Re-seed the environment's generator."""

    @abstractmethod
    def _begin_episode(self) -> np.ndarray:
        """Reset the simulator and return the first observation `(O,)`."""

    @abstractmethod
    def _control_step(self, action: np.ndarray) -> ControlStep:
        """Advance the simulator by one control step with `action (A,)` float64 in [-1, 1]."""


class TaskWrapper(TaskEnv):
    """Base class of wrappers that change the observations or actions of a task.

    Action repeat, time limit, rendering and generator are those of the wrapped environment.

    Args:
        env: the environment of the task.
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
        """Close the wrapped environment."""
        self.env.close()

    def generator_state(self) -> Any:
        """Return the state of the wrapped environment's generator."""
        return self.env.generator_state()

    def set_generator_state(self, state: Any) -> None:
        """Restore a state that `generator_state` returned."""
        self.env.set_generator_state(state)
