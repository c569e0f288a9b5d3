"""What a run is: the settings that decide its results, and those that don't."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class RunSpec:
    """The identity of a run and its budget.

    Attributes:
        method: a key of `METHODS`.
        task: name in the task table, or of a set of tasks.
        seed: of everything random.
        budget: when the run ends; may be raised later.
        budget_unit: `env_steps` (control steps, action repeat included), or `num_updates` of
            learning from a dataset.
        overrides: method settings that differ from the defaults, sorted by name.
        variant: name for this set of overrides.
        obs: what the agent sees, `state` or `rgb`.
        assets: where the models of a task that needs some come from (`official`, `rebuilt`,
            `standin`, or `unknown-` and a checksum); None where it needs none.
        task_switches: recorded switches of the tasks, sorted (see `task_variants.switches_of`).
        tasks: of the set, in the order of the task embedding; empty for a single task.
        dataset: checksum of what a set of tasks is learned from.
        start: facts of the trained model that a run goes on from, sorted by name.
    """

    method: str
    task: str
    seed: int
    budget: int
    budget_unit: Literal["env_steps", "num_updates"] = "env_steps"
    overrides: tuple[tuple[str, Scalar], ...] = ()
    variant: str = "default"
    obs: str = "state"
    assets: str | None = None
    task_switches: tuple[tuple[str, bool | str], ...] = ()
    tasks: tuple[str, ...] = ()
    dataset: str | None = None
    start: tuple[tuple[str, Scalar], ...] = ()

    @property
    def identity(self) -> str:
        """Hash of what changes learning: all but budget and name of the variant."""
        what: list[Any] = [self.method, self.task, self.seed, sorted(self.overrides)]
        if self.obs != "state":
            what.append(["obs", self.obs])
        if self.assets not in (None, "official"):
            what.append(["assets", self.assets])
        what += [list(switch) for switch in self.task_switches]
        if self.tasks:
            what += [["tasks", *self.tasks], ["dataset", self.dataset]]
        if self.start:
            what.append(["start", dict(self.start)])
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:10]

    def run_dir(self, root: Path) -> Path:
        """Where the run lives below `root`."""
        return root / self.method / self.variant / self.task / f"seed{self.seed}-{self.identity}"


def variant_name(overrides: tuple[tuple[str, Scalar], ...]) -> str:
    """A readable default name for a set of overrides: `default`, or `num_q-2+regression-mse`."""
    if not overrides:
        return "default"
    name = "+".join(f"{key}-{value}" for key, value in sorted(overrides))
    if len(name) <= 80:
        return name
    return f"{len(overrides)}-overrides-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class CommonOptions:
    """How any run is carried out; recorded, but no part of its identity."""

    runs: Path = field(
        default_factory=default_runs_dir, metadata={"help": "folder that holds all runs"}
    )
    device: str = _option("auto", "auto (a GPU where there is one), cpu, cuda, cuda:1 …")
    threads: int | None = _option(None, "CPU threads of torch; default: all cores, or as recorded")
    compile: bool | None = _option(
        None, "torch.compile of planning and updates; default: as recorded, or where it works"
    )
    eval_every: int | None = _option(None, "env steps between evaluations; default: the task's")
    eval_episodes: int = _option(10, "episodes per evaluation")
    eval_workers: int | None = _option(
        None, "processes that step them (0: this one); default: cores - 1, if that is 2 or more"
    )
    checkpoint_minutes: float = _option(10.0, "a checkpoint at the first episode end after this")
    progress: bool | None = _option(None, "progress bar; default: only in a terminal")
    checkpoint: Literal["latest", "previous"] = _option(
        "latest", "which checkpoint to resume from, if the latest is damaged"
    )
    allow_numeric_change: bool = _option(
        False, "resume although CPU type, torch, threads or device differ (not bit for bit)"
    )
    allow_commit_change: bool = _option(False, "resume although the code's commit differs")

    def __post_init__(self) -> None:
        """Rejects values out of range."""
        for name in ("threads", "eval_every", "eval_episodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if self.eval_workers is not None and self.eval_workers < 0:
            raise UserError(f"eval_workers={self.eval_workers}: must not be negative")
        if self.checkpoint_minutes < 0:
            raise UserError(f"checkpoint_minutes={self.checkpoint_minutes}: must not be negative")


@dataclass(frozen=True)
class RunOptions(CommonOptions):
    """How a run in an environment is carried out."""

    save_video: bool = _option(False, "an mp4 of one episode of each evaluation, in videos/")
    keep_replay: bool = _option(False, "keep the episodes, so that env_steps can be raised later")


@dataclass(frozen=True)
class OfflineOptions(CommonOptions):
    """How a run of learning from a dataset is carried out."""

    data: Path | None = field(default=None, metadata={"help": "folder of the dataset"})
    eval_every: int | None = _option(None, "updates between evaluations; default: 100,000")
    eval_episodes: int = _option(10, "episodes per task and evaluation")
    log_every: int = _option(1000, "updates between lines of train.csv")
    checkpoint_minutes: float = _option(10.0, "a checkpoint after this")
    accumulate: int = _option(1, "parts of a batch one after the other, to save memory")

    def __post_init__(self) -> None:
        """Rejects values out of range."""
        super().__post_init__()
        for name in ("log_every", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of `seeds=`: a count (`3` means 1, 2, 3) or a list (`1,2,5`, or `7,` for one)."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"seeds={text}: a count (3) or a list (1,2,5) is needed") from None
    if "," not in text and len(numbers) == 1:
        numbers = list(range(1, numbers[0] + 1))
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UserError(f"seeds={text}: a count (3) or a list of different seeds (1,2,5) is needed")
    return tuple(numbers)


def chosen_seeds(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Seeds of the arguments `seed=` and `seeds=`, of which one may be given; else 1."""
    if not values.get("seeds"):
        return (values.get("seed", 1),)
    if "seed" in values:
        raise UserError("seed= and seeds= exclude each other")
    return parse_seeds(values["seeds"])


def overrides_of(config: Any, default: Any) -> tuple[tuple[str, Scalar], ...]:
    """Fields in which a config differs from another of the same class, sorted by name."""
    changed = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value != getattr(default, f.name):
            changed.append((f.name, value))
    return tuple(sorted(changed))
