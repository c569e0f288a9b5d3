"""dm_control behind the `TaskEnv` contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from dm_control import suite
from dm_control.rl import control
from dm_control.suite.wrappers import action_scale

from tdmpc2.envs.base import FRAME_SIZE, ControlStep, DecisionEnv
from tdmpc2.envs.dmcontrol import ball_in_cup, cheetah, hopper, pendulum, reacher, walker
from tdmpc2.envs.physics import restore
from tdmpc2.envs.tasks import Task

CUSTOM: Mapping[str, Callable[[int], control.Environment]] = {
    f"{domain}/{name}": build
    for domain, module in {
        "ball_in_cup": ball_in_cup,
        "cheetah": cheetah,
        "hopper": hopper,
        "pendulum": pendulum,
        "reacher": reacher,
        "walker": walker,
    }.items()
    for name, build in module.TASKS.items()
}
"""The 11 tasks that are not in dm_control: env id -> environment from a seed."""


def load_raw(task: Task, seed: int) -> control.Environment:
    """The bare dm_control environment of a task, with the physics of `task.physics`.

    It has no time limit and no action repeat, and its actions have the
    simulator's own range.

    Args:
        task: a row of the DMControl domain.
        seed: seed of the task's `RandomState`, its only source of randomness.
    """
    domain, name = task.env_id.split("/")
    if task.env_id in CUSTOM:
        env = CUSTOM[task.env_id](seed)
    else:
        kwargs = {"random": seed, "time_limit": float("inf")}
        env = suite.load(domain, name, task_kwargs=kwargs)
    if task.physics == "paper":
        restore(env.physics.model.ptr, task.name)
    return env


class DMControlEnv(DecisionEnv):
    """A DMControl task: observations concatenated, actions scaled to [-1, 1]."""

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        """Loads `task` with its generator seeded by `seed`.

        Args:
            task: a row of the DMControl domain.
            seed: of initial states and targets.
            render: not needed; this simulator renders whenever asked.
        """
        super().__init__(task)
        raw = load_raw(task, seed)
        self._random: np.random.RandomState = raw.task.random
        self._env = action_scale.Wrapper(raw, minimum=-1.0, maximum=1.0)

    def generator_state(self) -> dict[str, Any]:
        """State of the task's `RandomState`, a nested dict of names, numbers and one array."""
        return self._random.get_state(legacy=False)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restores what `generator_state` returned."""
        self._random.set_state(state)

    def render(self) -> np.ndarray:
        """The scene `(H, W, 3)` uint8."""
        return self.frame(FRAME_SIZE)

    def frame(self, size: int) -> np.ndarray:
        """The scene `(size, size, 3)` uint8, from the camera that the pixel tasks look through."""
        camera = 2 if self.task.env_id.startswith("quadruped") else 0
        return self._env.physics.render(height=size, width=size, camera_id=camera)

    def close(self) -> None:
        """Frees what was rendered with, while the threads that OSMesa works in are still there."""
        self._env.physics.free()

    def _seed(self, seed: int) -> None:
        self._random.seed(seed)

    def _begin_episode(self) -> np.ndarray:
        return _flat(self._env.reset().observation)

    def _control_step(self, action: np.ndarray) -> ControlStep:
        step = self._env.step(action)
        return ControlStep(_flat(step.observation), float(step.reward), False, 0.0)


def _flat(observation: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()])
