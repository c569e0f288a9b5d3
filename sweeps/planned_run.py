"""A run that a sweep consists of, and the words that start it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc2.common.spec import RunSpec


@dataclass
class PlannedRun:
    """One run of a sweep.

    Attributes:
        spec: what runs.
        directory: its run directory.
        options: how it is carried out, beside what goes for all.
        asked: whether it must learn; None where that is not even shown.
        status: last `status.json` read, or None.
        exit_code: of its process on this machine; None before it ended.
        log: where its process writes what it has to say.
        started: whether it has a process on this machine, or had one.
    """

    spec: RunSpec
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: bool | None = False
    status: dict[str, Any] | None = None
    exit_code: int | None = None
    log: Path = field(init=False)
    started: bool = False

    def __post_init__(self) -> None:
        """The process of a run alone writes into its directory."""
        self.log = self.directory / "log.txt"

    @property
    def name(self) -> str:
        """For people: method, variant where it is another than the default, task and seed."""
        variant = "" if self.spec.variant == "default" else f"{self.spec.variant} "
        return f"{self.spec.method} {variant}{self.spec.task} seed {self.spec.seed}"


Pack = Sequence[PlannedRun]


def words_of(pack: Pack, options: Mapping[str, Any]) -> list[str]:
    """The `key=value` words that make the train command run exactly this.

    Args:
        pack: the runs of one process.
        options: see `RunOptions`; what a run has of its own wins.
    """
    spec = pack[0].spec
    seeds = ",".join(str(run.spec.seed) for run in pack)
    words = {
        "method": spec.method,
        "task": spec.task,
        **({"seed": spec.seed} if len(pack) == 1 else {"seeds": seeds}),
        "env_steps": spec.budget,
        "variant": spec.variant,
        "obs": spec.obs,
        "assets": (spec.assets or "official").partition("-")[0],
        **dict(spec.protocol),
        **dict(spec.overrides),
        **options,
        **pack[0].options,
    }
    return [f"{key}={value}" for key, value in words.items()]
