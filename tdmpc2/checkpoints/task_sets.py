"""The tasks of an official checkpoint, which only says how many there are and in what shapes."""

from __future__ import annotations

import dataclasses

from tdmpc2.checkpoints.architecture import Architecture
from tdmpc2.checkpoints.official import Constants
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.multitask import multitask_spec, padded_spec
from tdmpc2.envs.tasks import SUITES, TASKS, Task

MULTITASK = ("mt30", "mt80")
FEW_SHOT_TASKS = 70
"""Tasks of the released models for few-shot learning: the 80 without the ten held out."""


def recognize(found: Architecture) -> str | None:
    """The published set (`mt30`, `mt80`) whose number and shapes of tasks a model has, if any."""
    for name in MULTITASK:
        spec = multitask_spec(SUITES[name])
        if (found.num_tasks, found.obs_dim, found.action_dim) == (
            *(spec.num_tasks, spec.obs_shape[0], spec.action_dim),
        ):
            return name
    return None


def fitting_tasks(found: Architecture) -> tuple[str, ...]:
    """Tasks that a single-task model could be of, by its shapes."""
    shapes = (found.obs_dim, found.action_dim)
    return tuple(t.name for t in TASKS.values() if (t.obs_dim, t.action_dim) == shapes)


def env_of(tasks: tuple[Task, ...], found: Architecture, said: Constants) -> EnvSpec:
    """What a model of these tasks must know, checked against its weights.

    Args:
        tasks: in the order of the task embedding.
        found: by the weights.
        said: by the file.

    Raises:
        UserError: the model is of other tasks.
    """
    wanted = 1 if found.num_tasks is None else found.num_tasks
    kind = "a single-task model" if found.num_tasks is None else f"a model of {wanted} tasks"
    if len(tasks) != wanted:
        raise UserError(f"{kind}, but {len(tasks)} tasks are named")
    env = multitask_spec(tasks)
    if wanted == 1 and found.num_tasks is not None:  # finetuned, in the shapes of other tasks
        shapes = {"obs_dim": found.obs_dim, "action_dim": found.action_dim}
        env = padded_spec(tasks[0], shapes | {"episodic": found.episodic})
    if (env.obs_shape[0], env.action_dim) != (found.obs_dim, found.action_dim):
        what = tasks[0].name if len(tasks) == 1 else f"a set of these {len(tasks)} tasks"
        raise UserError(
            f"{kind} with {found.obs_dim} observed numbers and {found.action_dim} actions, but "
            f"{what} has {env.obs_shape[0]} and {env.action_dim}"
        )
    if said.action_dims is not None and said.action_dims != env.action_dims:
        pairs = zip(tasks, said.action_dims, env.action_dims, strict=False)
        task, theirs, ours = next(pair for pair in pairs if pair[1] != pair[2])
        raise UserError(
            f"the file's action masks are of other tasks: {theirs} actions where {task.name} "
            f"has {ours}"
        )
    if env.episodic and not found.episodic:
        raise UserError(
            f"{', '.join(t.name for t in tasks if t.episodic)}: episodes can end early, and the "
            "model predicts no termination"
        )
    return dataclasses.replace(env, episodic=found.episodic)
