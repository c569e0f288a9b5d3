"""Create the environment of a task; a simulator is imported on its first use."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.assets import AssetSet, MissingAssetsError, find_assets
from tdmpc2.envs.rendering import can_render_vulkan, prepare_rendering
from tdmpc2.envs.tasks import Task, get_task

if TYPE_CHECKING:  # planning a run needs no environment
    from tdmpc2.common.interfaces import EnvSpec, TaskEnv

Obs = Literal["state", "rgb"]


class Adapter(NamedTuple):
    """Adapter class of a domain, and what it requires.

    Attributes:
        target: `"module:Class"`, called with `(task, seed=seed, render=render)`.
        simulators: packages it needs beyond the base installation.
        pixels: whether `obs=rgb` is supported.
        renders: graphics API that `render()` uses; None if there is nothing to render.
    """

    target: str
    simulators: frozenset[str] = frozenset()
    pixels: bool = False
    renders: Literal["opengl", "vulkan"] | None = "opengl"


ADAPTERS: Mapping[str, Adapter] = {
    "dmcontrol": Adapter(
        "tdmpc2.envs.dmcontrol.adapter:DMControlEnv",
        frozenset({"dm_control", "dm_env", "mujoco"}),
        pixels=True,
    ),
    "metaworld": Adapter("tdmpc2.envs.metaworld:MetaWorldEnv", frozenset({"metaworld", "mujoco"})),
    "maniskill2": Adapter(
        "tdmpc2.envs.maniskill2:ManiSkill2Env",
        frozenset({"mani_skill2", "sapien"}),
        renders="vulkan",
    ),
    "myosuite": Adapter("tdmpc2.envs.myosuite:MyoSuiteEnv", frozenset({"myosuite", "mujoco"})),
    "toy": Adapter("tdmpc2.envs.toy:PointMass", renders=None),
}

# Shared libraries that the simulators' wheels expect on the system, with their Debian packages.
SYSTEM_LIBRARIES: Mapping[str, str] = {
    "libvulkan.so.1": "libvulkan1",
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libX11.so.6": "libx11-6",
    "libEGL.so.1": "libegl1",
    "libOSMesa.so.8": "libosmesa6",
}
MANISKILL2_PYTHON = (3, 11)
"""Newest Python version that SAPIEN has a release for."""


def make_env(
    task: str | Task,
    *,
    seed: int,
    obs: Obs = "state",
    assets: AssetSet | str = "official",
    render: bool = False,
    padded_to: EnvSpec | None = None,
) -> TaskEnv:
    """Make the environment of a task.

    Args:
        task: a row of the task table, or its name.
        seed: seed of the environment's only generator.
        obs: `state`, or `rgb` for the last three frames of a camera.
        assets: for tasks that need models: the source of the asset set, or the set itself.
        render: whether `render()` will be called.
        padded_to: shapes of the task set to pad to; None for single-task learning.

    Raises:
        UserError: the task is unknown, or something it needs is missing; the message names
            the command that installs it.
    """
    task = get_task(task) if isinstance(task, str) else task
    check_obs(task, obs)
    kwargs: dict[str, Any] = {}
    if task.assets is not None:
        asset_set = assets if isinstance(assets, AssetSet) else find_assets(task.assets, assets)
        kwargs["assets"] = asset_set
    adapter = ADAPTERS[task.domain]
    if render:
        check_render(task)
    if obs == "rgb" or (render and adapter.renders == "opengl"):
        prepare_rendering()
    env = _adapter_class(task, adapter)(task, seed=seed, render=render, **kwargs)
    if obs == "rgb":
        from tdmpc2.envs.pixels import PixelEnv

        return PixelEnv(env)
    if padded_to is not None:
        from tdmpc2.envs.multitask import PaddedEnv

        return PaddedEnv(env, padded_to)
    return env


def check_obs(task: Task, obs: str) -> None:
    """Check that a task supports a kind of observation.

    Raises:
        UserError: it does not; the message names the domains that do.
    """
    if obs not in ("state", "rgb"):
        raise UserError(f"obs={obs}: unknown value{did_you_mean(obs, ('state', 'rgb'))}")
    if obs == "rgb" and not ADAPTERS[task.domain].pixels:
        domains = ", ".join(name for name, adapter in ADAPTERS.items() if adapter.pixels)
        raise UserError(
            f"obs=rgb: task '{task.name}' has no pixel observations; only {domains} tasks do"
        )


def check_render(task: Task) -> None:
    """Check that a task can be rendered on this machine.

    Raises:
        UserError: it cannot; the message names what is missing.
    """
    renders = ADAPTERS[task.domain].renders
    if renders is None:
        raise UserError(f"task '{task.name}' has nothing to render")
    if renders == "vulkan" and not can_render_vulkan():
        raise UserError(
            f"task '{task.name}' renders only on a GPU with a Vulkan driver, and none was found; "
            "train without videos (save_video=false)"
        )


def missing_requirement(task: Task, assets: str) -> str:
    """Return what a task needs that is not installed, with the command to install it, or "".

    Simulators are not imported, so missing shared libraries of the system are not detected.

    Args:
        task: a row of the task table.
        assets: accepted sources of its models, see `find_assets`.

    Raises:
        UserError: an unknown source.
    """
    for package in sorted(ADAPTERS[task.domain].simulators):
        if importlib.util.find_spec(package) is None:
            return _not_installed(task, package)
    if task.assets is not None:
        try:
            find_assets(task.assets, assets)
        except MissingAssetsError as error:
            return str(error)
    return ""


def _not_installed(task: Task, package: str) -> str:
    """Return the error message for a simulator that is not installed."""
    if task.domain == "maniskill2" and sys.version_info[:2] > MANISKILL2_PYTHON:
        return (
            f"task '{task.name}' needs {package}, which has no release for this Python: "
            "install with Python 3.11 (PYTHON=python3.11 make install)"
        )
    return (
        f"task '{task.name}' needs {package}, which is not installed: "
        f"pip install -e '.[{task.domain}]'"
    )


def _adapter_class(task: Task, adapter: Adapter) -> type[Any]:
    """Import the adapter and, with it, the simulator."""
    module, _, name = adapter.target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in adapter.simulators:
            raise
        raise UserError(_not_installed(task, package)) from error
    except (ImportError, OSError) as error:
        library = re.search(r"lib[\w.-]+\.so[.\d]*", str(error))
        if library is None:
            raise
        package = SYSTEM_LIBRARIES.get(library[0], f"the package that contains {library[0]}")
        raise UserError(
            f"task '{task.name}' needs {library[0]}, which the system lacks: "
            f"apt-get install {package}"
        ) from error
