"""Adapter of Meta-World."""

from __future__ import annotations

from typing import Any

import numpy as np

from tdmpc2.envs.base import ControlStep, DecisionEnv
from tdmpc2.envs.mujoco_camera import MujocoCamera
from tdmpc2.envs.physics import BUTTONS, restore
from tdmpc2.envs.quiet import quiet
from tdmpc2.envs.tasks import Task

with quiet():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

BUTTON_DISTANCE = 0.02
"""Distance to the target, in m, within which the paper's Meta-World counts a button's success."""
_CAMERA = "corner2"
_CAMERA_POSITION = (0.75, 0.075, 0.7)  # closer to the table than in the original model


class MetaWorldEnv(DecisionEnv):
    """A Meta-World task; its goal is observed, and sampled anew in every episode.

    Rewards are version 2, as in the paper (the official code uses the `-v2-goal-observable`
    environments). Success is that of the simulator, read after each control step.

    Args:
        task: a row of the Meta-World domain.
        seed: seed of positions and goals.
        render: not used; `render` can always be called.
    """

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        super().__init__(task)
        with quiet():
            env = ALL_V3_ENVIRONMENTS[f"{task.env_id}-v3"](reward_function_version="v2")
        # Same as the `-goal-observable` classes, which do not accept a camera: the goal becomes
        # part of the observation, and the observation space is computed again.
        env._partially_observable = False
        del env.sawyer_observation_space
        env.observation_space = env.sawyer_observation_space
        env._set_task_called = True
        # Sample positions at each reset, from the environment's own generator. Without
        # `seeded_rand_vec` they come from NumPy's global generator.
        env._freeze_rand_vec = False
        env.seeded_rand_vec = task.seeded_resets
        env.seed(seed)
        if task.physics == "paper":
            restore(env.model, task.name)
        env.model.cam_pos[env.model.camera(_CAMERA).id] = _CAMERA_POSITION
        self._env = env
        self._view = MujocoCamera(env.model, _CAMERA)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the generator, a nested dict of names, integers and an array."""
        if not self.task.seeded_resets:
            return dict(np.random.get_state(legacy=False))
        return dict(self._env.np_random.bit_generator.state)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        if self.task.seeded_resets:
            self._env.np_random.bit_generator.state = state
        else:
            np.random.set_state(state)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the scene, `(H, W, 3)` uint8."""
        # This camera is mounted upside down.
        return np.ascontiguousarray(self._view.frame(self._env.data)[::-1, ::-1])

    def _seed(self, seed: int) -> None:
        self._env.seed(seed)

    def _begin_episode(self) -> np.ndarray:
        obs, _ = self._env.reset()
        # The paper's wrapper applies one zero action after each reset, but returns the observation
        # from before that action.
        self._env.step(np.zeros(self.task.action_dim))
        return obs

    def _control_step(self, action: np.ndarray) -> ControlStep:
        obs, reward, _, _, info = self._env.step(action)
        success = info["success"]
        if self.task.physics == "paper" and self.task.name in BUTTONS:
            success = info["obj_to_target"] <= BUTTON_DISTANCE
        return ControlStep(obs, float(reward), False, float(success))
