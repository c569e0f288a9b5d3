"""Adapter of MyoSuite."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np

from tdmpc2.envs.base import ControlStep, DecisionEnv
from tdmpc2.envs.mujoco_camera import MujocoCamera
from tdmpc2.envs.physics import restore
from tdmpc2.envs.quiet import quiet
from tdmpc2.envs.tasks import Task

# MyoSuite reads the version of its models with git, and installed models have no repository.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
with quiet():
    import myosuite  # noqa: F401  registers the environments

_CAMERA = "hand_side_inter"


class MyoSuiteEnv(DecisionEnv):
    """A hand driven by muscles. Only the time limit of the task table ends an episode.

    As in the paper, MyoSuite's own time limits (50 to 200 steps) and early terminations are
    ignored. Success is the simulator's `solved`.

    Args:
        task: a row of the MyoSuite domain.
        seed: seed of targets and initial poses; tasks whose id ends in `Fixed` sample none.
        render: not used; `render` can always be called.
    """

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        super().__init__(task)
        with quiet():
            made: Any = gymnasium.make(task.env_id)
        self._env: Any = made.unwrapped
        if task.physics == "paper":
            restore(self._env.mj_model, task.name)
        self._env.seed(seed)
        self._view = MujocoCamera(self._env.mj_model, _CAMERA)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the simulator's generator, a nested dict of names and integers."""
        return dict(self._env.np_random.bit_generator.state)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        self._env.np_random.bit_generator.state = state

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the scene, `(H, W, 3)` uint8."""
        return self._view.frame(self._env.mj_data)

    def _seed(self, seed: int) -> None:
        self._env.seed(seed)  # `reset(seed=)` does not seed the generator

    def _begin_episode(self) -> np.ndarray:
        obs, _ = self._env.reset()
        return obs

    def _control_step(self, action: np.ndarray) -> ControlStep:
        obs, reward, _, _, info = self._env.step(action)
        return ControlStep(obs, float(reward), False, float(info["solved"]))
