"""Adapter of ManiSkill2."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets import AssetSet
from tdmpc2.envs.base import FRAME_SIZE, ControlStep, DecisionEnv
from tdmpc2.envs.quiet import quiet
from tdmpc2.envs.tasks import Task

with quiet():
    import mani_skill2.envs  # noqa: F401  registers the environments

    from tdmpc2.envs.maniskill2_headless import remove_renderer, renderer_removed

# The end effector of the other tasks is controlled in position only.
_POSE_CONTROLLED = ("PickSingleYCB-v0", "TurnFaucet-v0")


class ManiSkill2Env(DecisionEnv):
    """A ManiSkill2 task with state observations, dense rewards and end-effector control.

    Rewards are the unnormalized dense rewards (ManiSkill2 0.5 normalizes by default). As in
    the paper, an episode continues after success, unless the task is episodic.

    Args:
        task: a row of the ManiSkill2 domain.
        seed: seed of objects, positions and goals.
        render: whether `render` will be called; needs a GPU with Vulkan.
        assets: the models, for tasks that need some.

    Raises:
        UserError: `render` is true, but the process has already made an environment without.
    """

    def __init__(
        self, task: Task, *, seed: int, render: bool = False, assets: AssetSet | None = None
    ) -> None:
        super().__init__(task)
        kwargs: dict[str, Any] = dict(assets.kwargs) if assets is not None else {}
        if render:
            if renderer_removed():
                raise UserError(
                    "the ManiSkill2 renderer was removed in this process; request rendering from "
                    "the first environment on"
                )
            size = {"width": FRAME_SIZE, "height": FRAME_SIZE}
            kwargs |= {"render_mode": "rgb_array", "render_camera_cfgs": size}
            kwargs["renderer_kwargs"] = {"offscreen_only": True}
        else:
            remove_renderer()
        mode = "pd_ee_delta_pose" if task.env_id in _POSE_CONTROLLED else "pd_ee_delta_pos"
        with quiet():
            made: Any = gymnasium.make(
                task.env_id, obs_mode="state", control_mode=mode, reward_mode="dense", **kwargs
            )
        self._env: Any = made.unwrapped
        self._env.set_main_rng(seed)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the generator that seeds episodes, a nested dict with one array."""
        return self._env._main_rng.get_state(legacy=False)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        self._env._main_rng.set_state(state)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the scene, `(H, W, 3)` uint8.

        Raises:
            RuntimeError: the environment was made without `render=True`.
        """
        if renderer_removed():
            raise RuntimeError(f"{self.task.name}: the environment was made without render=True")
        return self._env.render()

    def _seed(self, seed: int) -> None:
        self._env.set_main_rng(seed)

    def _begin_episode(self) -> np.ndarray:
        # Each episode gets a new scene. Otherwise the state that PhysX keeps from the last episode
        # would affect this one, and a resumed run could not repeat it.
        obs, _ = self._env.reset(options={"reconfigure": True})
        return obs

    def _control_step(self, action: np.ndarray) -> ControlStep:
        obs, reward, _, _, info = self._env.step(action)
        success = float(info["success"])
        return ControlStep(obs, float(reward), bool(self.task.episodic and success), success)
