"""Environments of every task, with whatever models this machine has for those that need some."""

from __future__ import annotations

import os
from typing import Any

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import Task, get_task


def assets_of(task: Task) -> str:
    """Source of the models: the rebuilt YCB objects where they are, else the stand-ins."""
    rebuilt = task.assets == "ycb" and "MS2_ASSET_DIR" in os.environ
    return "rebuilt" if rebuilt else "standin"


def make(task: str | Task, seed: int, **kwargs: Any) -> TaskEnv:
    """`make_env` with models that can be had without a download."""
    task = get_task(task) if isinstance(task, str) else task
    return make_env(task, seed=seed, assets=assets_of(task), **kwargs)
