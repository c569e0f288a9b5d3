"""Several tasks behind one shape: padded observations, masked actions, lengths of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from tdmpc2.common.protocols import EnvSpec
from tdmpc2.envs.base import TaskWrapper
from tdmpc2.envs.tasks import Task


def multitask_spec(tasks: Sequence[Task]) -> EnvSpec:
    """Shapes that hold every task of a set; its order is the index of the task embedding.

    Args:
        tasks: with states as observations, e.g. the suites `mt30` and `mt80`.
    """
    return EnvSpec(
        obs_shape=(max(task.obs_dim for task in tasks),),
        action_dim=max(task.action_dim for task in tasks),
        episode_lengths=tuple(task.episode_length for task in tasks),
        action_repeats=tuple(task.action_repeat for task in tasks),
        action_dims=tuple(task.action_dim for task in tasks),
        task_names=tuple(task.name for task in tasks),
        episodic=any(task.episodic for task in tasks),
    )


class PaddedEnv(TaskWrapper):
    """One task of a set, in the shapes of the set.

    Observations end in zeros; of an action, the first dimensions are the task's and
    the others have no effect (they are zero where the agent masks them). The clock
    is the task's own, so episodes of different tasks differ in length.

    Args:
        env: the task, with states as observations.
        spec: of the set that the task belongs to.
    """

    def __init__(self, env: Any, spec: EnvSpec) -> None:
        super().__init__(env)
        self.task_index = spec.task_names.index(self.task.name)
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, spec.obs_shape, dtype=np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,), dtype=np.float32)
        self.action_mask = np.arange(spec.action_dim) < self.task.action_dim
        self._missing = spec.obs_shape[0] - self.task.obs_dim

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see `DecisionEnv.reset`."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._padded(obs), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one decision; see `DecisionEnv.step`.

        Raises:
            ValueError: the action has another shape than the set's, or is not finite.
        """
        action = np.asarray(action)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"{self.task.name}: action has shape {action.shape}, "
                f"expected {self.action_space.shape}"
            )
        obs, *others = self.env.step(action[: self.task.action_dim])
        return self._padded(obs), *others

    def _padded(self, obs: np.ndarray) -> np.ndarray:
        return np.pad(obs, (0, self._missing))
