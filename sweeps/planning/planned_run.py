"""A run that a sweep consists of, and the arguments that start it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc2.common.run.run_files import step_of
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.envs.tasks import SUITES, get_task

# What budgets are counted in, for people; and the speed as `status.json` calls it.
UNITS = {"env_steps": "env steps", "num_updates": "updates"}
SPEEDS = {"env_steps": "env_steps_per_second", "num_updates": "updates_per_second"}


@dataclass
class PlannedRun:
    """One run of a sweep.

    Attributes:
        spec: what runs.
        directory: its run directory.
        options: how it is carried out, beside what goes for all.
        asked: whether it must learn; None where that is not even shown.
        kind: for tables: the task's domain, or the set of tasks and the model's size.
        missing: what it needs that this machine lacks, and the command that gets it; empty if
            nothing.
        status: last `status.json` read, or None.
        exit_code: of its process on this machine; None before it ended.
        log: where its process writes what it has to say.
        started: whether it has a process on this machine, or had one.
    """

    spec: RunSpec
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: bool | None = False
    kind: str = ""
    missing: str = ""
    status: dict[str, Any] | None = None
    exit_code: int | None = None
    log: Path = field(init=False)
    started: bool = False

    def __post_init__(self) -> None:
        """The process of a run alone writes into its directory."""
        self.log = self.directory / "log.txt"
        if not self.kind:
            self.kind = self.spec.task if self.spec.tasks else get_task(self.spec.task).domain

    @property
    def name(self) -> str:
        """For people: method, variant where it is another than the default, task and seed."""
        variant = "" if self.spec.variant == "default" else f"{self.spec.variant} "
        return f"{self.spec.method} {variant}{self.spec.task} seed {self.spec.seed}"

    @property
    def step(self) -> int:
        """Where it stands, in the unit of its budget."""
        return step_of(self.status) if self.status else 0


SeedGroup = Sequence[PlannedRun]


def train_arguments(group: SeedGroup, options: Mapping[str, Any]) -> list[str]:
    """The `key=value` arguments that make the train command run exactly this.

    Args:
        group: the runs of one process.
        options: see `RunOptions`; what a run has of its own wins.
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
    """Those that make the train command learn exactly this from a dataset."""
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
    """`key=value` arguments; the last value of a key wins."""
    merged: dict[str, Any] = {}
    for more in values:
        merged |= more
    return [f"{key}={value}" for key, value in merged.items()]
