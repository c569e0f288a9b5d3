"""Pixel observations in place of states."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np

from tdmpc2.envs.base import TaskWrapper

PIXELS = 64
"""Height and width of an observation, in pixels."""
FRAME_STACK = 3
"""Frames in an observation: the current one and those of the two decisions before it."""


class PixelEnv(TaskWrapper):
    """A task with pixel observations: the last three frames, `(9, 64, 64)` uint8.

    Frames are ordered oldest first. At the beginning of an episode the first frame is repeated
    (paper, appendix on visual control).

    Args:
        env: a task with a method `frame(size)` that returns `(size, size, 3)` uint8.
    """

    frame_stack = FRAME_STACK

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        shape = (3 * FRAME_STACK, PIXELS, PIXELS)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, dtype=np.uint8)
        self._frames: deque[np.ndarray] = deque(maxlen=FRAME_STACK)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see `DecisionEnv.reset`."""
        _, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([self._frame()] * FRAME_STACK)
        return np.concatenate(self._frames), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one decision; see `DecisionEnv.step`."""
        _, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(self._frame())
        return np.concatenate(self._frames), reward, terminated, truncated, info

    def _frame(self) -> np.ndarray:
        return np.ascontiguousarray(self.env.frame(PIXELS).transpose(2, 0, 1))
