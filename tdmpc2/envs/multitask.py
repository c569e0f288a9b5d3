"""Multi-task environments: padded observations and masked actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.base import TaskWrapper
from tdmpc2.envs.tasks import Task


def multitask_spec(tasks: Sequence[Task]) -> EnvSpec:
    """Return the padded shapes of a task set; the order of tasks is that of the task embedding.

    Args:
        tasks: tasks with state observations, for example the suites `mt30` and `mt80`.
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


def padded_spec(task: Task, start: Mapping[str, Any]) -> EnvSpec:
    """Return the shapes for finetuning a multi-task model on one task.

    Args:
        task: the task to learn.
        start: `obs_dim`, `action_dim` and `episodic` of the multi-task model.

    Raises:
        UserError: the task does not fit the shapes of the model.
    """
    own = multitask_spec([task])
    obs_dim, action_dim, episodic = (start[key] for key in ("obs_dim", "action_dim", "episodic"))
    for what, own_dim, model_dim in (
        ("observations", own.obs_shape[0], obs_dim),
        ("actions", own.action_dim, action_dim),
    ):
        if own_dim > model_dim:
            raise UserError(
                f"task={task.name}: its {what} have {own_dim} dimensions, but those of the "
                f"model only {model_dim}"
            )
    if own.episodic and not episodic:
        raise UserError(
            f"task={task.name}: its episodes can terminate, but the model does not predict "
            "termination"
        )
    return dataclasses.replace(own, obs_shape=(obs_dim,), action_dim=action_dim, episodic=episodic)


class PaddedEnv(TaskWrapper):
    """One task of a task set, in the padded shapes of the set.

    Observations are padded with zeros at the end. Only the first `task.action_dim` dimensions
    of an action have an effect; the agent masks the others to zero. Action repeat and episode
    length are those of the task, so episodes of different tasks differ in length.

    Args:
        env: environment of the task, with state observations.
        spec: shapes of the task set.
    """

    def __init__(self, env: Any, spec: EnvSpec) -> None:
        super().__init__(env)
        self.task_index = spec.task_names.index(self.task.name)
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, spec.obs_shape, dtype=np.float32
        )
        self.action_mask = np.arange(spec.action_dim) < self.task.action_dim
        high = self.action_mask.astype(np.float32)  # samples are 0 in dimensions without effect
        self.action_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self._num_padding = spec.obs_shape[0] - self.task.obs_dim

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see `DecisionEnv.reset`."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._padded(obs), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one decision; see `DecisionEnv.step`.

        Raises:
            ValueError: the shape of the action is not that of the task set, or it is not finite.
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
        return np.pad(obs, (0, self._num_padding))
