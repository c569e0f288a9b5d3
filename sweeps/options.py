"""The words of `sweeps/launch.py`: what to run, where, and how they become runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeps.grid import NO_PRESET, PRESETS, Preset, companion_spec, grid
from sweeps.planned_run import PlannedRun
from tdmpc2.common import cli
from tdmpc2.common.errors import UserError
from tdmpc2.common.spec import RunOptions, parse_seeds
from tdmpc2.envs.protocol import Protocol, part
from tdmpc2.envs.tasks import SUITES, get_suite, get_task
from tdmpc2.methods import METHODS, agent_class


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SweepOptions:
    """What to launch."""

    suite: str | None = _option(None, " | ".join(sorted(SUITES)))
    tasks: str | None = _option(None, "instead of a suite: comma-separated task names")
    methods: str | None = _option(
        None,
        f"comma-separated; default: {','.join(METHODS)} for a suite (the smoke suite brings its "
        "own), tdmpc2 for tasks",
    )
    seeds: str = _option("3", "a count (3) or a list (1,2,5)")
    env_steps: int | None = _option(None, "budget of each run; default: the suite's or the task's")
    variants: str | None = _option(
        None,
        "several settings: default,num_q=2,my-name:regression=mse+num_q=2 (comma: next; +: and)",
    )
    variant: str | None = _option(None, "name of these settings")
    obs: str = _option("state", "state | rgb (DMControl only)")
    assets: str = _option(
        "official",
        "of pick-ycb and turn-faucet: official | rebuilt | standin | unknown, or several, by "
        "preference (official,unknown)",
    )
    cluster: Literal["auto", "slurm", "local", "inline"] = _option(
        "auto", "auto is SLURM where it answers, else local; inline: in this process"
    )
    max_parallel: int | None = _option(
        None, "processes (local) or jobs (SLURM) at a time; default: cores / threads, or no limit"
    )
    seeds_per_process: int = _option(1, "seeds of a task that one process trains as one batch")
    partition: str | None = _option(None, "SLURM: default: the cluster's")
    gpus: int | None = _option(None, "SLURM: of a job; default: 1 where the partition has some")
    runs_per_gpu: int = _option(1, "SLURM: processes that share a GPU (without any: a job)")
    cpus: int | None = _option(None, "SLURM: cores of a process; default: threads, or 4 on a GPU")
    mem_gb: int | None = _option(None, "SLURM: of a job; default: as estimated")
    timeout_min: int | None = _option(
        None, "SLURM: after which a job is requeued; default: 1440, or the partition's limit"
    )
    sbatch: str | None = _option(
        None, "SLURM: more options, comma-separated: account=lab,qos=low,hold"
    )
    after: Literal["figures"] | None = _option(
        None, "when all runs have ended, also if some failed: draw the figures"
    )
    only: Literal["all", "failed"] = _option("all", "failed: leave out what has not failed")
    yes: bool = _option(False, "local: start even what will take days")
    dry_run: bool = _option(False, "show the plan and stop")

    def __post_init__(self) -> None:
        """Rejects values out of range."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value}: must be at least {least}")

    @property
    def label(self) -> str:
        """Name of the sweep for people and files."""
        return self.suite or "tasks"

    @property
    def preset(self) -> Preset:
        """Settings that come with the suite."""
        return PRESETS.get(self.suite or "", NO_PRESET)

    @property
    def method_names(self) -> list[str]:
        """Of the grid."""
        if self.methods is not None:
            return self.methods.split(",")
        whole = self.suite is not None and not self.preset.companions
        return list(METHODS) if whole else ["tdmpc2"]


_LEAST = {
    "max_parallel": 1,
    "seeds_per_process": 1,
    "gpus": 0,
    "runs_per_gpu": 1,
    "cpus": 1,
    "mem_gb": 1,
    "timeout_min": 1,
}


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        sweep: what to launch.
        how: how every run is carried out.
        options: what of that was given, but for threads, which depend on the cluster.
        planned: the runs.
    """

    sweep: SweepOptions
    how: RunOptions
    options: dict[str, Any]
    planned: list[PlannedRun]

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.how.runs


def parse(words: Sequence[str]) -> Request:
    """Reads the words of the command line.

    Raises:
        UserError: unknown key, or a value of another type or out of range.
    """
    sweep_schema, run_schema = cli.schema_of(SweepOptions), cli.schema_of(RunOptions)
    pairs = cli.split_words(words)
    named = SweepOptions(suite=pairs.get("suite"), methods=pairs.get("methods")).method_names
    config_schema: dict[str, Any] = {}
    for method in named:
        config_schema |= cli.schema_of(agent_class(method).config_class)
    own = {**sweep_schema, **run_schema}
    settings = {**config_schema, **cli.schema_of(Protocol)}
    values = cli.parse_words(words, {**settings, **own})
    sweep = SweepOptions(**{k: v for k, v in values.items() if k in sweep_schema})
    given = {k: v for k, v in values.items() if k in run_schema and k != "progress"}
    how = RunOptions(**{**sweep.preset.options, **given})
    given_settings = {k: v for k, v in values.items() if k not in own}
    options = {"runs": how.runs, **sweep.preset.options, **given}
    options.pop("threads", None)
    return Request(
        sweep=sweep,
        how=how,
        options=options,
        planned=plan_runs(sweep, given_settings, settings, how.runs),
    )


def _check_shared(overrides: Mapping[str, Any], methods: Sequence[str]) -> None:
    """Refuses settings that only some of several methods have."""
    for method in methods:
        known = cli.schema_of(agent_class(method).config_class)
        for name in overrides:
            if name not in known:
                raise UserError(f"{name}: {method} has no such setting; say which methods= have it")


def plan_runs(
    sweep: SweepOptions, settings: Mapping[str, Any], schema: Mapping[str, Any], runs: Path
) -> list[PlannedRun]:
    """Every run of a sweep, and those that come along with its suite.

    Args:
        sweep: what to launch.
        settings: of all variants: of methods, and of the tasks' protocol.
        schema: types of all settings there are.
        runs: folder of all runs.
    """
    planned = []
    for name, more in _variants(sweep, schema):
        overrides, protocol = part({**settings, **more})
        _check_shared(overrides, sweep.method_names)
        specs = grid(
            _task_names(sweep),
            sweep.method_names,
            parse_seeds(sweep.seeds),
            preset=sweep.preset,
            env_steps=sweep.env_steps,
            variant=name,
            overrides=overrides,
            obs=sweep.obs,
            assets=sweep.assets,
            protocol=protocol,
        )
        for spec in specs:
            asked = sweep.preset.must_learn and spec.method == "tdmpc2"
            planned.append(PlannedRun(spec, spec.run_dir(runs), asked=asked))
    for companion in sweep.preset.companions if sweep.methods is None else ():
        spec = companion_spec(sweep.preset, companion, sweep.variant or sweep.preset.variant)
        directory = spec.run_dir(runs)
        planned.append(PlannedRun(spec, directory, options=companion.options, asked=None))
    seen: dict[Path, PlannedRun] = {run.directory: run for run in planned}
    return list(seen.values())


def _variants(
    sweep: SweepOptions, schema: Mapping[str, Any]
) -> list[tuple[str | None, dict[str, Any]]]:
    """Names and settings of each variant; one without a name where none are given."""
    if sweep.variants is None:
        return [(sweep.variant, {})]
    if sweep.variant is not None:
        raise UserError("one of variant= and variants= is needed, not both")
    found: list[tuple[str | None, dict[str, Any]]] = []
    for text in sweep.variants.split(","):
        name, _, words = text.rpartition(":")
        chosen = [] if words in ("", "default") else words.split("+")
        found.append((name or None, cli.parse_words(chosen, schema)))
    return found


def _task_names(sweep: SweepOptions) -> list[str]:
    """Tasks of the suite, or those named one by one."""
    if (sweep.suite is None) == (sweep.tasks is None):
        raise UserError(f"one of suite= and tasks= is needed (suites: {', '.join(sorted(SUITES))})")
    if sweep.suite is not None:
        return [task.name for task in get_suite(sweep.suite)]
    return [get_task(name.strip()).name for name in (sweep.tasks or "").split(",")]
