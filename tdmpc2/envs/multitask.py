"""Several tasks behind one shape: padded observations, masked actions, lengths of their own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.base import TaskWrapper
from tdmpc2.envs.tasks import SUITES, TASKS, Task, get_task

MAX_NAME = 100  # of a folder


def parse_tasks(text: str) -> tuple[Task, ...]:
    """Tasks by name, in the order of the task embedding.

    Args:
        text: a task, a suite (`mt30`), or a list of tasks (`walker-walk,cheetah-run`).

    Raises:
        UserError: no such task or suite, or one twice.
    """
    if text in SUITES:
        return SUITES[text]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("task=: a task, a suite or a list of tasks is needed")
    try:
        tasks = tuple(get_task(name) for name in names)
    except UserError:
        unknown = next(name for name in names if name not in TASKS)
        if len(names) > 1:
            raise
        known = (*TASKS, *SUITES)
        raise UserError(f"unknown task '{unknown}'{did_you_mean(unknown, known)}") from None
    twice = next((task.name for task in tasks if tasks.count(task) > 1), None)
    if twice is not None:
        raise UserError(f"task={text}: {twice} is named twice")
    return tasks


def get_task_set(text: str) -> tuple[str, tuple[Task, ...]]:
    """Name and tasks of a set; their order is the index of the task embedding.

    Args:
        text: a suite, or several tasks by commas.

    Raises:
        UserError: no such suite or task, one task twice, or fewer than two.
    """
    tasks = parse_tasks(text)
    if text in SUITES:
        return text, tasks
    names = [task.name for task in tasks]
    if len(tasks) < 2:
        raise UserError(
            f"task={text}: learning from a dataset takes several tasks: mt30, mt80, another "
            "suite, or a list such as task=cheetah-run,cheetah-run-backwards"
        )
    name = "+".join(names)
    if len(name) > MAX_NAME:
        name = f"{len(names)}-tasks-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name, tasks


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


def padded_spec(task: Task, start: Mapping[str, Any]) -> EnvSpec:
    """Shapes of one task as a model of several saw it that a run goes on from.

    Args:
        task: that is learned.
        start: `obs_dim`, `action_dim` and `episodic` of the model.

    Raises:
        UserError: the task does not fit into them.
    """
    own = multitask_spec([task])
    obs_dim, action_dim, episodic = (start[key] for key in ("obs_dim", "action_dim", "episodic"))
    for what, mine, theirs in (
        ("observations", own.obs_shape[0], obs_dim),
        ("actions", own.action_dim, action_dim),
    ):
        if mine > theirs:
            raise UserError(
                f"task={task.name}: its {what} have {mine} dimensions, the model's {theirs}"
            )
    if own.episodic and not episodic:
        raise UserError(f"task={task.name}: its episodes can end early; the model knows no end")
    return dataclasses.replace(own, obs_shape=(obs_dim,), action_dim=action_dim, episodic=episodic)


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
        self.action_mask = np.arange(spec.action_dim) < self.task.action_dim
        reach = self.action_mask.astype(np.float32)  # what has no effect is not drawn either
        self.action_space = gymnasium.spaces.Box(-reach, reach, dtype=np.float32)
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
