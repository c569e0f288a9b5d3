"""Identify the tasks of an official checkpoint, which contains only their number and shapes."""

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
"""Tasks of the released models for few-shot learning: mt80 without the ten held-out tasks."""


def recognize(architecture: Architecture) -> str | None:
    """Return the published task set (`mt30`, `mt80`) with a model's number and shapes of tasks.

    Returns:
        The name of the task set; None if there is none.
    """
    for name in MULTITASK:
        spec = multitask_spec(SUITES[name])
        if (architecture.num_tasks, architecture.obs_dim, architecture.action_dim) == (
            *(spec.num_tasks, spec.obs_shape[0], spec.action_dim),
        ):
            return name
    return None


def fitting_tasks(architecture: Architecture) -> tuple[str, ...]:
    """Return the tasks that have the shapes of a single-task model."""
    shapes = (architecture.obs_dim, architecture.action_dim)
    return tuple(t.name for t in TASKS.values() if (t.obs_dim, t.action_dim) == shapes)


def env_of(tasks: tuple[Task, ...], architecture: Architecture, constants: Constants) -> EnvSpec:
    """Return the `EnvSpec` of a model of these tasks, checked against its weights.

    Args:
        tasks: the tasks, in the order of the task embedding.
        architecture: architecture detected from the weights.
        constants: constants of the file.

    Raises:
        UserError: the tasks do not fit the model.
    """
    wanted = 1 if architecture.num_tasks is None else architecture.num_tasks
    kind = "a single-task model" if architecture.num_tasks is None else f"a model of {wanted} tasks"
    if len(tasks) != wanted:
        raise UserError(f"{kind}, but {len(tasks)} tasks are given")
    env = multitask_spec(tasks)
    if wanted == 1 and architecture.num_tasks is not None:  # finetuned from a multi-task model
        shapes = {"obs_dim": architecture.obs_dim, "action_dim": architecture.action_dim}
        env = padded_spec(tasks[0], shapes | {"episodic": architecture.episodic})
    if (env.obs_shape[0], env.action_dim) != (architecture.obs_dim, architecture.action_dim):
        what = tasks[0].name if len(tasks) == 1 else f"a set of these {len(tasks)} tasks"
        raise UserError(
            f"{kind} with obs_dim {architecture.obs_dim} and action_dim "
            f"{architecture.action_dim}, but {what} has {env.obs_shape[0]} and {env.action_dim}"
        )
    if constants.action_dims is not None and len(constants.action_dims) != len(tasks):
        raise UserError(
            f"the file has action masks of {len(constants.action_dims)} tasks, but {len(tasks)} "
            "are given; it is damaged"
        )
    if constants.action_dims is not None and constants.action_dims != env.action_dims:
        pairs = zip(tasks, constants.action_dims, env.action_dims, strict=False)
        task, in_file, in_table = next(pair for pair in pairs if pair[1] != pair[2])
        raise UserError(
            f"the action masks in the file do not fit the tasks: {in_file} action dimensions, but "
            f"{task.name} has {in_table}"
        )
    if env.episodic and not architecture.episodic:
        raise UserError(
            f"{', '.join(t.name for t in tasks if t.episodic)}: episodes can terminate, but the "
            "model does not predict termination"
        )
    return dataclasses.replace(env, episodic=architecture.episodic)
