"""From a task to its environment; simulators are imported here, on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from tdmpc2.common.errors import UserError
from tdmpc2.common.protocols import TaskEnv
from tdmpc2.envs.tasks import Task, get_task


class Adapter(NamedTuple):
    """Where a domain's environments come from.

    Attributes:
        target: `"module:Class"`, called with `(task, seed=seed)`.
        simulators: the packages it needs beyond the base installation.
    """

    target: str
    simulators: frozenset[str] = frozenset()


ADAPTERS: Mapping[str, Adapter] = {
    "dmcontrol": Adapter(
        "tdmpc2.envs.dmcontrol.adapter:DMControlEnv", frozenset({"dm_control", "dm_env", "mujoco"})
    ),
    "toy": Adapter("tdmpc2.envs.toy:PointMass"),
}


def make_env(task: str | Task, *, seed: int) -> TaskEnv:
    """Makes the environment of a task.

    Args:
        task: a row of the task table, or the name of one.
        seed: seeds the environment's only generator.

    Raises:
        UserError: no such task, or its simulator is not installed.
    """
    task = get_task(task) if isinstance(task, str) else task
    adapter = ADAPTERS[task.domain]
    module, _, name = adapter.target.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in adapter.simulators:
            raise
        raise UserError(
            f"task '{task.name}' needs {package}, which is not installed: "
            f"pip install -e '.[{task.domain}]'"
        ) from error
    return make(task, seed=seed)
