"""Switches that change the tasks of a domain; the defaults are the paper's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.config_checks import Settings, require, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.physics import Physics, repairs_of
from tdmpc2.envs.tasks import Task, get_task


@dataclass(frozen=True)
class TaskSwitches(Settings):
    """Physics, and how episodes begin and end.

    Attributes:
        physics: `paper` restores the physics of the simulators that the paper used, as far as
            possible; `simulator` is the physics of the installed simulators.
        stop_at_success: end an episode at its first success, as later versions of the official
            code do in ManiSkill2. The task is then episodic: the agent learns to predict
            termination.
        seeded_resets: sample positions and goals from the environment's own generator. If false,
            Meta-World samples them from NumPy's global generator, which training and evaluation
            share.
    """

    physics: Physics = setting(
        "paper", "paper: undo what newer simulators changed; simulator: use them as they are"
    )
    stop_at_success: bool = setting(False, "ManiSkill2: end an episode at its first success")
    seeded_resets: bool = setting(
        True,
        "Meta-World: sample resets from the environment's own generator; false: from "
        "NumPy's global one",
    )


PAPER = TaskSwitches()
DOMAINS = {"stop_at_success": "maniskill2", "seeded_resets": "metaworld"}
"""The only domain in which a switch has an effect; `physics` depends on the task."""
NAMES = frozenset(f.name for f in dataclasses.fields(TaskSwitches))

Switches = tuple[tuple[str, bool | str], ...]


def part(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into those of methods and those of tasks."""
    switches = {name: value for name, value in settings.items() if name in NAMES}
    return {k: v for k, v in settings.items() if k not in NAMES}, switches


def switches_of(values: Mapping[str, bool | str], *tasks: Task) -> Switches:
    """Return the switches that a run records, sorted by name.

    These are the switches that differ from the paper's, and `physics`, with any value, if it
    matters in one of the tasks. Records of version 0.4.0 have no `physics`; they differ from both.

    Args:
        values: fields of `TaskSwitches` that were given.
        tasks: tasks of the run.

    Raises:
        UserError: a switch has no effect in these tasks.
    """
    changed = {k: v for k, v in values.items() if v != getattr(PAPER, k) and k != "physics"}
    for name, value in changed.items():
        if all(task.domain != DOMAINS[name] for task in tasks):
            raise UserError(
                f"{name}={str(value).lower()}: has no effect in {tasks[0].name}; it applies only "
                f"to {DOMAINS[name]} tasks"
            )
    if any(repairs_of(task.name) for task in tasks):
        changed["physics"] = values.get("physics", PAPER.physics)
    return tuple(sorted(changed.items()))


def departures(switches: Switches) -> Switches:
    """Return the recorded switches that differ from the paper's; unknown ones do."""
    return tuple((k, v) for k, v in switches if k not in NAMES or v != getattr(PAPER, k))


def task_of(spec: RunSpec) -> Task:
    """Return the task of a run, with the run's switches."""
    return with_switches(get_task(spec.task), dict(spec.task_switches))


def run_of_0_4_0(spec: RunSpec, root: Path) -> Path | None:
    """Return the directory of the same run under the physics of version 0.4.0.

    Its records name no physics, so its identity differs: it is never continued under another.

    Args:
        spec: a run.
        root: folder that holds all runs.

    Returns:
        The directory; None if there is none, or if physics do not matter in the run's tasks.
    """
    switches = tuple((name, value) for name, value in spec.task_switches if name != "physics")
    directory = dataclasses.replace(spec, task_switches=switches).run_dir(root)
    there = switches != spec.task_switches and (directory / "spec.json").exists()
    return directory if there else None


def with_switches(task: Task, switches: Mapping[str, Any]) -> Task:
    """Return a task with switches set.

    Args:
        task: row of the task table.
        switches: fields of `TaskSwitches`.

    Raises:
        UserError: a switch is unknown, e.g. as a newer version recorded it, or its value is.
    """
    for name, value in switches.items():
        known = name in NAMES
        require(known, f"{name}={value}: unknown task switch; use the version that wrote it")
    chosen = TaskSwitches(**switches)
    return dataclasses.replace(
        task,
        episodic=task.episodic or chosen.stop_at_success,
        seeded_resets=chosen.seeded_resets,
        physics=chosen.physics,
    )
