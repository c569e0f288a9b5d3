"""Switches that change how episodes of a domain begin or end; the defaults are the paper's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import Task, get_task


@dataclass(frozen=True)
class TaskSwitches:
    """How episodes begin and end; the defaults are the paper's.

    Attributes:
        stop_at_success: end an episode at its first success, as later versions of the official
            code do in ManiSkill2. The task is then episodic: the agent learns to predict
            termination.
        seeded_resets: sample positions and goals from the environment's own generator. If false,
            Meta-World samples them from NumPy's global generator, which training and evaluation
            share.
    """

    stop_at_success: bool = field(
        default=False, metadata={"help": "ManiSkill2: end an episode at its first success"}
    )
    seeded_resets: bool = field(
        default=True,
        metadata={
            "help": "Meta-World: sample resets from the environment's own generator; false: from "
            "NumPy's global one"
        },
    )


PAPER = TaskSwitches()
DOMAINS = {"stop_at_success": "maniskill2", "seeded_resets": "metaworld"}
"""The domain that each switch applies to."""


def part(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bool]]:
    """Split settings into those of methods and those of tasks."""
    switches = {name: value for name, value in settings.items() if name in DOMAINS}
    return {k: v for k, v in settings.items() if k not in DOMAINS}, switches


def departures(task_switches: Mapping[str, bool], task: Task) -> tuple[tuple[str, bool], ...]:
    """Return the switches whose values differ from the paper's, sorted by name.

    Args:
        task_switches: fields of `TaskSwitches`.
        task: the task that they apply to.

    Raises:
        UserError: a switch has no effect in the task's domain.
    """
    changed = sorted((k, v) for k, v in task_switches.items() if v != getattr(PAPER, k))
    for name, value in changed:
        if task.domain != DOMAINS[name]:
            raise UserError(
                f"{name}={str(value).lower()}: has no effect in {task.name}; it applies only to "
                f"{DOMAINS[name]} tasks"
            )
    return tuple(changed)


def task_of(spec: RunSpec) -> Task:
    """Return the task of a run, with the run's switches."""
    task = get_task(spec.task)
    switches = TaskSwitches(**dict(spec.task_switches))
    return dataclasses.replace(
        task,
        episodic=task.episodic or switches.stop_at_success,
        seeded_resets=switches.seeded_resets,
    )
