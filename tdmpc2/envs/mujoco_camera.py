"""Pictures of a MuJoCo scene for people to look at."""

from __future__ import annotations

import weakref
from typing import Any

import mujoco
import numpy as np

from tdmpc2.envs.base import FRAME_SIZE

# On a CPU, the stock 4096 and 4 take five times as long, for edges that a video does not show.
_SHADOW_SIZE, _SAMPLES = 1024, 0


class MujocoCamera:
    """Draws what a camera of the model sees.

    Args:
        model: its drawing quality is lowered; nothing that moves is changed.
        camera: its name.
    """

    def __init__(self, model: mujoco.MjModel, camera: str) -> None:
        self._model, self._camera = model, camera
        self._renderer: Any = None

    def frame(self, data: mujoco.MjData) -> np.ndarray:
        """The scene `(FRAME_SIZE, FRAME_SIZE, 3)` uint8 in its present state."""
        if self._renderer is None:
            self._model.vis.quality.shadowsize = _SHADOW_SIZE
            self._model.vis.quality.offsamples = _SAMPLES
            self._renderer = mujoco.Renderer(self._model, FRAME_SIZE, FRAME_SIZE)
            # Before the interpreter takes OpenGL apart, which would end in a traceback.
            weakref.finalize(self, self._renderer.close)
        self._renderer.update_scene(data, camera=self._camera)
        return self._renderer.render()
