"""Adapter of dm_control."""

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
"""The 11 tasks that dm_control lacks: env id -> function from a seed to the environment."""


def load_raw(task: Task, seed: int) -> control.Environment:
    """Load the dm_control environment of a task, with the physics of `task.physics`.

    It has no time limit and no action repeat, and its actions have the simulator's own range.

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
    """A DMControl task: observations are concatenated, actions scaled to [-1, 1].

    Args:
        task: a row of the DMControl domain.
        seed: seed of initial states and targets.
        render: not used; `render` can always be called.
    """

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        super().__init__(task)
        raw = load_raw(task, seed)
        self._random: np.random.RandomState = raw.task.random
        self._env = action_scale.Wrapper(raw, minimum=-1.0, maximum=1.0)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the task's `RandomState`, a nested dict with one array."""
        return self._random.get_state(legacy=False)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        self._random.set_state(state)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the scene, `(H, W, 3)` uint8."""
        return self.frame(FRAME_SIZE)

    def frame(self, size: int) -> np.ndarray:
        """Render the scene from the camera of the pixel tasks, `(size, size, 3)` uint8."""
        camera = 2 if self.task.env_id.startswith("quadruped") else 0
        return self._env.physics.render(height=size, width=size, camera_id=camera)

    def close(self) -> None:
        """Free the rendering context while the threads that OSMesa uses still exist."""
        self._env.physics.free()

    def _seed(self, seed: int) -> None:
        self._random.seed(seed)

    def _begin_episode(self) -> np.ndarray:
        return _flat(self._env.reset().observation)

    def _control_step(self, action: np.ndarray) -> ControlStep:
        step = self._env.step(action)
        return ControlStep(_flat(step.observation), float(step.reward), False, 0.0)


def _flat(observation: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in observation.values()])
