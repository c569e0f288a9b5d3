"""Switches that change how a domain's tasks begin or end; the defaults are the paper's."""

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
        stop_at_success: end an episode at its first success, as the authors' later code does
            in ManiSkill2; the agent then learns to predict the end, as in any task that has one.
        seeded_resets: draw positions and goals from a generator of the environment's own. Without,
            Meta-World draws them from NumPy's global one, which an evaluation moves on for
            training and the other way round.
    """

    stop_at_success: bool = field(
        default=False, metadata={"help": "ManiSkill2: an episode ends at its first success"}
    )
    seeded_resets: bool = field(
        default=True,
        metadata={"help": "Meta-World: false: NumPy's global generator, as its own resets"},
    )


PAPER = TaskSwitches()
DOMAINS = {"stop_at_success": "maniskill2", "seeded_resets": "metaworld"}
"""Where each switch changes something."""


def part(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bool]]:
    """Splits settings into those of methods and those of tasks."""
    switches = {name: value for name, value in settings.items() if name in DOMAINS}
    return {k: v for k, v in settings.items() if k not in DOMAINS}, switches


def departures(task_switches: Mapping[str, bool], task: Task) -> tuple[tuple[str, bool], ...]:
    """What of it differs from the paper's, sorted by name.

    Args:
        task_switches: fields of `TaskSwitches`.
        task: to be run by it.

    Raises:
        UserError: a switch that changes nothing in this task.
    """
    changed = sorted((k, v) for k, v in task_switches.items() if v != getattr(PAPER, k))
    for name, value in changed:
        if task.domain != DOMAINS[name]:
            raise UserError(
                f"{name}={str(value).lower()}: changes nothing in {task.name}, only in "
                f"{DOMAINS[name]} tasks"
            )
    return tuple(changed)


def task_of(spec: RunSpec) -> Task:
    """The task of a run, with the run's switches."""
    task = get_task(spec.task)
    switches = TaskSwitches(**dict(spec.task_switches))
    return dataclasses.replace(
        task,
        episodic=task.episodic or switches.stop_at_success,
        seeded_resets=switches.seeded_resets,
    )
