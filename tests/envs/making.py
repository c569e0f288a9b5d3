"""Environments of every task, with the models that this machine has."""

from __future__ import annotations

import os
from typing import Any

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import Task, get_task


def assets_of(task: Task) -> str:
    """Return the source of the models: rebuilt YCB objects if available, else the stand-ins."""
    rebuilt = task.assets == "ycb" and "MS2_ASSET_DIR" in os.environ
    return "rebuilt" if rebuilt else "standin"


def make(task: str | Task, seed: int, **kwargs: Any) -> TaskEnv:
    """Make an environment with models that need no download."""
    task = get_task(task) if isinstance(task, str) else task
    return make_env(task, seed=seed, assets=assets_of(task), **kwargs)
