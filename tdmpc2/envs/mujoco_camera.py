"""Render MuJoCo scenes for videos."""

from __future__ import annotations

import weakref
from typing import Any

import mujoco
import numpy as np

from tdmpc2.envs.base import FRAME_SIZE

# On a CPU, the defaults (4096 and 4) take five times as long; a video does not show a difference.
_SHADOW_SIZE, _SAMPLES = 1024, 0


class MujocoCamera:
    """Renderer of one camera of a model.

    Args:
        model: the model; its rendering quality is lowered, its physics is not changed.
        camera: name of the camera.
    """

    def __init__(self, model: mujoco.MjModel, camera: str) -> None:
        self._model, self._camera = model, camera
        self._renderer: Any = None

    def frame(self, data: mujoco.MjData) -> np.ndarray:
        """Render the current state of the scene, `(FRAME_SIZE, FRAME_SIZE, 3)` uint8."""
        if self._renderer is None:
            self._model.vis.quality.shadowsize = _SHADOW_SIZE
            self._model.vis.quality.offsamples = _SAMPLES
            self._renderer = mujoco.Renderer(self._model, FRAME_SIZE, FRAME_SIZE)
            # Close before the interpreter unloads OpenGL, which would print a traceback.
            weakref.finalize(self, self._renderer.close)
        self._renderer.update_scene(data, camera=self._camera)
        return self._renderer.render()
