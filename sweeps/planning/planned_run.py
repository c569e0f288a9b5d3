"""One run of a sweep, and the arguments that start it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc2.common.run.run_files import step_of
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.envs.tasks import SUITES, get_task

# Budget units as shown to the user, and the keys of `status.json` that hold the speed in them.
UNITS = {"env_steps": "env steps", "num_updates": "updates"}
SPEEDS = {"env_steps": "env_steps_per_second", "num_updates": "updates_per_second"}


@dataclass
class PlannedRun:
    """One run of a sweep.

    Attributes:
        spec: identity and budget of the run.
        directory: run directory.
        options: options of this run, which override those of the sweep.
        must_learn: whether the run must learn for the sweep to succeed; None to omit the column
            "learned" from the summary.
        kind: group in tables: the task's domain, or the task set and the model size.
        missing: what the run needs and this machine lacks, and the command that gets it; empty
            if nothing is missing.
        status: content of `status.json` when it was last read, or None.
        exit_code: exit code of its process on this machine; None until the process has ended.
        log: file with the output of its process.
        started: whether this launch has started a process for it.
    """

    spec: RunSpec
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    must_learn: bool | None = False
    kind: str = ""
    missing: str = ""
    status: dict[str, Any] | None = None
    exit_code: int | None = None
    log: Path = field(init=False)
    started: bool = False

    def __post_init__(self) -> None:
        """Set the log file and, if not given, the group in tables."""
        self.log = self.directory / "log.txt"
        if not self.kind:
            self.kind = self.spec.task if self.spec.tasks else get_task(self.spec.task).domain

    @property
    def name(self) -> str:
        """Name in messages: method, variant if it is not the default, task and seed."""
        variant = "" if self.spec.variant == "default" else f"{self.spec.variant} "
        return f"{self.spec.method} {variant}{self.spec.task} seed {self.spec.seed}"

    @property
    def step(self) -> int:
        """Progress in the unit of the budget: env steps or updates done."""
        return step_of(self.status) if self.status else 0


SeedGroup = Sequence[PlannedRun]


def train_arguments(group: SeedGroup, options: Mapping[str, Any]) -> list[str]:
    """Build the `key=value` arguments with which the train command trains a group of runs.

    Args:
        group: the runs of one process.
        options: run options (see `RunOptions`); options of the run itself override them.
    """
    spec = group[0].spec
    if spec.tasks:
        return _key_values(_multitask_arguments(spec), options, group[0].options)
    seeds = ",".join(str(run.spec.seed) for run in group)
    arguments = {
        "method": spec.method,
        "task": spec.task,
        **({"seed": spec.seed} if len(group) == 1 else {"seeds": seeds}),
        "env_steps": spec.budget,
        "variant": spec.variant,
        "obs": spec.obs,
        "assets": (spec.assets or "official").partition("-")[0],
        **dict(spec.task_switches),
        **dict(spec.overrides),
    }
    return _key_values(arguments, options, group[0].options)


def _multitask_arguments(spec: RunSpec) -> dict[str, Any]:
    """Build the arguments that identify a multi-task run, which learns from a dataset."""
    return {
        "method": spec.method,
        "task": spec.task if spec.task in SUITES else ",".join(spec.tasks),
        "seed": spec.seed,
        "num_updates": spec.budget,
        "variant": spec.variant,
        **dict(spec.task_switches),
        **dict(spec.overrides),
    }


def _key_values(*values: Mapping[str, Any]) -> list[str]:
    """Format mappings as `key=value` arguments; later mappings override earlier ones."""
    merged: dict[str, Any] = {}
    for more in values:
        merged |= more
    return [f"{key}={value}" for key, value in merged.items()]
