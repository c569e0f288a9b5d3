"""One run of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc2.common.run.run_files import step_of
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.envs.tasks import get_task

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
        missing: why the run cannot start or continue, and what to do: what it needs and this
            machine lacks, or why it would be refused; empty if nothing is missing.
        status: content of `status.json` when it was last read, or None.
        exit_code: exit code of its process on this machine; None until the process has ended.
        log: file with the output of its process.
        started: whether this launch has started a process for it.
        silence: what to do about it, if its process has recorded no progress for long.
        obstacle: why no process could be started; empty if none was tried, or one was started.
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
    silence: str = ""
    obstacle: str = ""

    def __post_init__(self) -> None:
        """Set the log file and, if not given, the group in tables."""
        self.log = self.directory / "log.txt"
        if not self.kind:
            self.kind = self.spec.task if self.spec.tasks else get_task(self.spec.task).domain

    @property
    def name(self) -> str:
        """Name in messages: method, variant if it is not the default, task and seed."""
        return f"{self.name_but_seed} seed {self.spec.seed}"

    @property
    def name_but_seed(self) -> str:
        """The name without the seed, equal for the runs of a process."""
        variant = "" if self.spec.variant == "default" else f"{self.spec.variant} "
        return f"{self.spec.method} {variant}{self.spec.task}"

    @property
    def step(self) -> int:
        """Progress in the unit of the budget: env steps or updates done."""
        return step_of(self.status) if self.status else 0


SeedGroup = Sequence[PlannedRun]
