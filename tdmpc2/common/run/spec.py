"""`RunSpec`, the identity and budget of a run, and the options that are not part of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple

from tdmpc2.common.system.config_checks import (
    BATCH,
    EPISODES,
    MINUTES,
    STEPS,
    THREADS,
    WORKERS,
    Settings,
    require,
    setting,
)
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import default_runs_dir

MAX_SEEDS = 10_000
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class RunSpec:
    """Identity and budget of a run.

    Attributes:
        method: key of `METHODS`, e.g. `tdmpc2`.
        task: name of a task in the task table, or of a task set.
        seed: seed of all random numbers.
        budget: length of the run in `budget_unit`; may be raised later.
        budget_unit: `env_steps` (control steps, action repeat included), or `num_updates`
            (gradient steps) for training from a dataset.
        overrides: hyperparameters that differ from the defaults, sorted by name.
        variant: name of this set of overrides.
        obs: observations of the agent, `state` or `rgb`.
        assets: source of the 3D models for tasks that need them (`official`, `rebuilt`,
            `standin`, or `unknown-` and a checksum); None for other tasks.
        task_switches: recorded switches of the tasks, sorted (see `task_variants.switches_of`).
        tasks: tasks of the task set, in the order of the task embedding; empty for a single task.
        dataset: checksum of the dataset of a multi-task run; None for a single task.
        start: facts about the pretrained model that a run starts from, sorted by name; empty for
            a run from scratch.
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
        """Hash of everything that changes training: all fields except budget and variant."""
        content: list[Any] = [self.method, self.task, self.seed, sorted(self.overrides)]
        content += [list(item) for item in unusual(vars(self)).items()]
        content += [list(switch) for switch in self.task_switches]
        if self.tasks:
            content += [["tasks", *self.tasks], ["dataset", self.dataset]]
        if self.start:
            content.append(["start", dict(self.start)])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]

    def run_dir(self, root: Path) -> Path:
        """Return the run directory in the folder of runs `root`."""
        return root / self.method / self.variant / self.task / f"seed{self.seed}-{self.identity}"

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the identity, as values of JSON."""
        pairs = {name: dict(getattr(self, name)) for name in _PAIRS}
        return {**vars(self), **pairs, "tasks": list(self.tasks), "identity": self.identity}

    @classmethod
    def from_json(cls, facts: Any) -> RunSpec:
        """Return the specification that `to_json` has described.

        Raises:
            UserError: a key is missing, unknown or of another type, or the identity is not that of
                the other values.
        """
        require(isinstance(facts, dict), f"{facts!r} is not a table of the fields of a run")
        types = {**_JSON_TYPES, "identity": _TEXT}
        for key, value in facts.items():
            require(key in types, f"unknown key '{key}'{did_you_mean(key, types)}")
            require(types[key].fits(value), f"{key}={value!r}: must be {types[key].noun}")
        for key in types:
            require(key in facts, f"the key '{key}' is missing")
        pairs = {name: tuple(sorted(facts[name].items())) for name in _PAIRS}
        values = {**facts, **pairs, "tasks": tuple(facts["tasks"])}
        identity = values.pop("identity")
        spec = cls(**values)
        require(
            spec.identity == identity,
            f"identity={identity}: its settings have the identity {spec.identity}; they were "
            "changed, or written by another version",
        )
        return spec


_USUAL = {"obs": (None, "state"), "assets": (None, "official")}


def unusual(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the observations and assets of a run where they are not the paper's.

    Args:
        facts: fields of a `RunSpec`, or a `spec.json`, which may lack them.
    """
    return {key: facts[key] for key, usual in _USUAL.items() if facts.get(key) not in usual}


class _JsonType(NamedTuple):
    """How a field of `RunSpec` is checked when it is read, and its name in error messages."""

    noun: str
    fits: Callable[[Any], bool]


def _is_scalars(value: Any) -> bool:
    known = (str, int, float, NoneType)
    return isinstance(value, dict) and all(isinstance(one, known) for one in value.values())


_TEXT = _JsonType("text", lambda value: isinstance(value, str))
_OPTIONAL = _JsonType("text or null", lambda value: isinstance(value, str | None))
_INTEGER = _JsonType("an integer", lambda value: type(value) is int)
_SETTINGS = _JsonType("a table of values", _is_scalars)
_PAIRS = ("overrides", "task_switches", "start")
_JSON_TYPES = {
    **dict.fromkeys(("method", "task", "variant", "obs"), _TEXT),
    **dict.fromkeys(("assets", "dataset"), _OPTIONAL),
    **dict.fromkeys(("seed", "budget"), _INTEGER),
    **dict.fromkeys(_PAIRS, _SETTINGS),
    "budget_unit": _JsonType(
        "env_steps or num_updates", lambda value: value in ("env_steps", "num_updates")
    ),
    "tasks": _JsonType(
        "a list of names",
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    ),
}


def variant_name(overrides: tuple[tuple[str, Scalar], ...]) -> str:
    """Return a readable name for a set of overrides: `default`, or `num_q-2+regression-mse`.

    Long names, and those that cannot name a folder, are replaced by a checksum.
    """
    if not overrides:
        return "default"
    name = "+".join(f"{key}-{value}" for key, value in sorted(overrides))
    if len(name) <= 80 and "/" not in name and name.isprintable():
        return name
    return f"{len(overrides)}-overrides-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def algorithm_settings(overrides: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the overrides but the precision: how results are computed, not what is."""
    return {key: value for key, value in overrides.items() if key != "precision"}


def without_precision(variant: str) -> str:
    """Return the name of a variant without the precision, which is no setting of the algorithm.

    `no-simnorm` for `precision-tf32+no-simnorm`, and `default` for `precision-tf32`.
    """
    parts = [part for part in variant.split("+") if not part.startswith("precision-")]
    return "+".join(parts) or "default"


@dataclass(frozen=True)
class CommonOptions(Settings):
    """Options of every run that are not part of its identity.

    They do not change what is learned, except by rounding; evaluation options change `eval.csv`.
    """

    runs: Path = setting(default_runs_dir, "folder that holds all runs")
    device: str = setting("auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 …")
    threads: int | None = setting(
        None,
        "CPU threads of torch; default: all cores; on resume: as recorded",
        THREADS,
    )
    compile: bool | None = setting(
        None, "torch.compile of planning and updates; default: if it works; on resume: as recorded"
    )
    eval_every: int | None = setting(
        None, "env steps between evaluations; default: set by the task", STEPS
    )
    eval_episodes: int = setting(10, "number of episodes per evaluation", EPISODES)
    eval_workers: int | None = setting(
        None,
        "processes that step the evaluation environments of each seed (0: this process); default: "
        "(threads - 1) / seeds in this process, if that is at least 2",
        WORKERS,
    )
    checkpoint_minutes: float = setting(
        10.0, "minutes between checkpoints, each saved at the next end of an episode", MINUTES
    )
    progress: bool | None = setting(
        None, "show a progress bar; default: in a terminal, else print a line per evaluation"
    )
    logger: str | None = setting(
        None,
        "mirrors of the records: tensorboard | wandb | mlflow | package.module:Class, or several "
        "by commas",
    )
    study: str | None = setting(
        None, "hash of the registered study that starts the run; the launcher sets it"
    )
    checkpoint: Literal["latest", "previous"] = setting(
        "latest", "checkpoint to resume from; previous: if the latest is damaged"
    )
    allow_numeric_change: bool = setting(
        False, "resume although CPU, torch, threads or device differ; results are not bit-exact"
    )
    allow_commit_change: bool = setting(False, "resume although the commit of the code differs")


@dataclass(frozen=True)
class RunOptions(CommonOptions):
    """Options of an online run; not part of its identity."""

    save_video: bool = setting(False, "write an mp4 of one episode of each evaluation to videos/")
    keep_replay: bool = setting(False, "keep all episodes, so that env_steps can be raised later")


@dataclass(frozen=True)
class OfflineOptions(CommonOptions):
    """Options of a run that trains from a dataset; not part of its identity."""

    data: Path | None = setting(None, "folder of the dataset (required)")
    eval_every: int | None = setting(
        None, "gradient steps between evaluations; default: 100,000", STEPS
    )
    eval_episodes: int = setting(10, "number of episodes per task and evaluation", EPISODES)
    log_every: int = setting(1000, "gradient steps between lines of train.csv", STEPS)
    checkpoint_minutes: float = setting(10.0, "minutes between checkpoints", MINUTES)
    accumulate: int = setting(
        1, "micro-batches per batch, computed one after the other to save memory", BATCH
    )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse `seeds=`: a count (`3` means 1, 2, 3) or a list (`1,2,5`, or `7,` for one seed).

    Raises:
        UserError: the text is neither, or the seeds are negative or not distinct.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"seeds={text}: a count (3) or a list (1,2,5) is needed") from None
    if "," not in text and len(numbers) == 1:
        require(numbers[0] <= MAX_SEEDS, f"seeds={text}: at most {MAX_SEEDS} seeds are possible")
        numbers = list(range(1, numbers[0] + 1))
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UserError(f"seeds={text}: a count (3) or a list of different seeds (1,2,5) is needed")
    return tuple(numbers)


def list_of_seeds(seeds: Iterable[int]) -> str:
    """Return seeds as a list that `parse_seeds` reads: `1,3`, or `7,` for one seed."""
    texts = list(map(str, seeds))
    return ",".join(texts) + "," * (len(texts) == 1)


def chosen_seeds(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the seeds that the options `seed` and `seeds` select; seed 1 by default.

    Raises:
        UserError: both options are given.
    """
    if not values.get("seeds"):
        return (values.get("seed", 1),)
    if "seed" in values:
        raise UserError("seed= and seeds= exclude each other; give only one of them")
    return parse_seeds(values["seeds"])


def overrides_of(config: Any, default: Any) -> tuple[tuple[str, Scalar], ...]:
    """Return the fields in which a config differs from a default config, sorted by name.

    Paths are returned as texts, as `spec.json` has them.
    """
    changed: list[tuple[str, Scalar]] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value != getattr(default, f.name):
            changed.append((f.name, str(value) if isinstance(value, Path) else value))
    return tuple(sorted(changed))
