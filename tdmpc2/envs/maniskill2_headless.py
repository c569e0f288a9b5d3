"""Run ManiSkill2 without a renderer: SAPIEN's renderer crashes on machines without a GPU."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import sapien.core as sapien
from mani_skill2.envs.sapien_env import BaseEnv


class _Nothing:
    """Null object in place of a renderer and of the objects that a renderer creates.

    Every attribute and every call returns the object itself.
    """

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Nothing:
        return self


class _Engine:
    """SAPIEN's engine without an attached renderer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engine = _sapien_engine(*args, **kwargs)

    def set_renderer(self, renderer: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


_sapien_engine = sapien.Engine


def _no_cameras(env: Any) -> None:
    env._cameras, env._render_cameras = OrderedDict(), OrderedDict()


def _plain_ground(env: Any, altitude: float = 0.0, render: bool = True) -> Any:
    return env._scene.add_ground(altitude=altitude, render=False)


def remove_renderer() -> None:
    """Remove rendering from SAPIEN and ManiSkill2 for the rest of this process.

    Bodies keep their collision shapes, so the physics does not change by a single bit. Visual
    shapes, cameras and lights are not created. Repeated calls have no effect.
    """
    if sapien.Engine is _Engine:
        return
    sapien.Engine = _Engine
    sapien.SapienRenderer = lambda **kwargs: _Nothing()
    for name in dir(sapien.ActorBuilder):
        if name.startswith("add_") and "visual" in name:
            setattr(sapien.ActorBuilder, name, lambda builder, *args, **kwargs: None)
    BaseEnv._setup_cameras = _no_cameras
    BaseEnv._setup_lighting = lambda env: None
    BaseEnv._add_ground = _plain_ground


def renderer_removed() -> bool:
    """Return whether `remove_renderer` was called in this process."""
    return sapien.Engine is _Engine
