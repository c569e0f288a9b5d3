"""Create the environment of a task; a simulator is imported on its first use."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any, Literal

from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.memory_errors import out_of_memory
from tdmpc2.common.system.user_code import CURE, OURS, load_object
from tdmpc2.envs.adapters import ADAPTERS, Adapter, variable_of
from tdmpc2.envs.assets import AssetSet, MissingAssetsError, find_assets
from tdmpc2.envs.other_python import missing_there, other_python
from tdmpc2.envs.rendering import (
    can_render_vulkan,
    load_triton_first,
    prepare_rendering,
    prepare_without_rendering,
)
from tdmpc2.envs.tasks import Task, get_task

if TYPE_CHECKING:  # planning a run needs no environment
    from tdmpc2.common.interfaces import EnvSpec, TaskEnv

Obs = Literal["state", "rgb"]


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
    kwargs: dict[str, Any] = {"seed": seed, "render": render}
    if task.assets is not None:
        asset_set = assets if isinstance(assets, AssetSet) else find_assets(task.assets, assets)
        kwargs["assets"] = asset_set
    adapter = ADAPTERS[task.domain]
    if render:
        check_render(task)
    if other_python(task.domain) is not None:
        env = _env_elsewhere(task, obs, kwargs)
    else:
        if obs == "rgb" or (render and adapter.renders == "opengl"):
            prepare_rendering()
        elif adapter.renders == "opengl":
            prepare_without_rendering()
        load_triton_first()
        env = _made(_adapter_class(task, adapter), task, kwargs)
    if obs == "rgb":
        from tdmpc2.envs.pixels import PixelEnv

        return PixelEnv(env)
    if padded_to is not None:
        from tdmpc2.envs.multitask import PaddedEnv

        return PaddedEnv(env, padded_to)
    return env


def _env_elsewhere(task: Task, obs: str, wanted: dict[str, Any]) -> TaskEnv:
    """Make an environment in a process of another Python; see `other_python`.

    Args:
        task: task of a domain with another Python.
        obs: kind of observation.
        wanted: other arguments of `make_env`.

    Raises:
        UserError: that Python lacks a package, or the process would need pixels or the global
            generator of this one.
    """
    from tdmpc2.envs.workers import RemoteEnv

    missing = missing_there(ADAPTERS[task.domain])
    if missing:
        raise UserError(f"task '{task.name}' {missing}")
    if obs != "state" or not task.seeded_resets:
        what = f"obs={obs}" if obs != "state" else "seeded_resets=false"
        raise UserError(f"{what}: not with {variable_of(task.domain)}; unset it")
    return RemoteEnv({"task": task, **wanted})


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
    if renders == "vulkan" and not can_render_vulkan(task.domain):
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
    adapter = ADAPTERS[task.domain]
    if other_python(task.domain) is not None:
        missing = missing_there(adapter)
    else:
        package = adapter.missing_package()
        missing = "" if package is None else adapter.how_to_install(package)
    if missing:
        return f"task '{task.name}' {missing}"
    if task.assets is not None:
        try:
            find_assets(task.assets, assets)
        except MissingAssetsError as error:
            return str(error)
    return ""


def _made(maker: Any, task: Task, kwargs: dict[str, Any]) -> TaskEnv:
    """Call the class of an adapter.

    Args:
        maker: the class.
        task: task of the environment.
        kwargs: its other arguments.

    Raises:
        UserError: it cannot be called in this way, or makes something else than a `TaskEnv`.
    """
    from tdmpc2.common.interfaces import TaskEnv

    what = f"task '{task.name}': {getattr(maker, '__name__', maker)}"
    call = ", ".join(("task", *(f"{name}={name}" for name in kwargs)))
    if inspect.isabstract(maker):
        lacking = ", ".join(sorted(maker.__abstractmethods__))
        raise UserError(f"{what} lacks {lacking}; see DecisionEnv in tdmpc2/envs/base.py")
    try:
        inspect.signature(maker).bind(task, **kwargs)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}({call}) cannot be called: {error}") from None
    env = maker(task, **kwargs)
    if not isinstance(env, TaskEnv):
        kind = type(env).__name__
        raise UserError(f"{what} made {kind}, which is no DecisionEnv (tdmpc2/envs/base.py)")
    return env


def _adapter_class(task: Task, adapter: Adapter) -> Any:
    """Import the adapter and, with it, the simulator."""
    what = f"simulator '{adapter.domain}' ({adapter.target})"
    module, _, name = adapter.target.partition(":")
    try:
        importlib.import_module(module)
        return load_object(what, f"{module}:{name}")
    except SystemExit:
        return load_object(what, f"{module}:{name}")  # says what to do
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in adapter.top_level:
            raise UserError(f"task '{task.name}' {adapter.how_to_install(package)}") from error
        if package in OURS:
            raise
        raise UserError(f"{what}: cannot be imported ({error}); {CURE}") from error
    except (ImportError, OSError) as error:
        library = re.search(r"lib[\w.-]+\.so[.\d]*", str(error))
        if library is None or out_of_memory(error) is not None:
            raise
        unknown = f"the package that contains {library[0]}"
        package = adapter.system_libraries.get(library[0], unknown)
        raise UserError(
            f"task '{task.name}' needs {library[0]}, which the system lacks: "
            f"apt-get install {package}"
        ) from error
