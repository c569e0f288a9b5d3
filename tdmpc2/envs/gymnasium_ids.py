"""The suite's tasks as Gymnasium environments; importing this module registers their ids."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from tdmpc2.common.run.video import FRAMES_PER_SECOND
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import get_suite, get_task

NAMESPACE = "tdmpc2"


def id_of(name: str) -> str:
    """Return the id of a task, for `gymnasium.make`."""
    return f"{NAMESPACE}/{name}-v0"


class SuiteEnv(gymnasium.Env):
    """A task of the suite with the interface of Gymnasium.

    A step is a decision (`TaskEnv`): actions in [-1, 1], action repeat, time limit and physics are
    those of the paper. `reset(seed=k)` begins the same episode as in the suite.

    Args:
        task: name of the task.
        render_mode: `rgb_array`, or None if nothing will be rendered.
        assets: accepted sources of 3D models, for tasks that need them.
        physics: see `TaskSwitches`.

    Raises:
        UserError: something that the task needs is missing.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND,
    }

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        assets: str = "official",
        physics: Physics = "paper",
    ) -> None:
        row = with_switches(get_task(task), {"physics": physics})
        self._env = make_env(row, seed=0, assets=assets, render=render_mode is not None)
        self._seeded = False
        self.render_mode = render_mode
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: new seed; None continues the sequence of episodes, which begins at random.
            options: not used.

        Returns:
            The first observation `(O,)` float32, and `info` with `success` and `success_ever`.
        """
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        self._seeded = True
        return self._env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one decision; see `DecisionEnv.step`."""
        return self._env.step(action)  # type: ignore[return-value]

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return a frame `(H, W, 3)` uint8; None without a render mode."""
        return None if self.render_mode is None else self._env.render()  # type: ignore[return-value]

    def close(self) -> None:
        """Close the simulator."""
        self._env.close()


for _task in get_suite("all104"):
    gymnasium.register(id_of(_task.name), f"{__name__}:SuiteEnv", kwargs={"task": _task.name})
