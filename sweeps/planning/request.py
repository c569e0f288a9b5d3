"""The arguments of `sweeps/launch.py`: what to run, where, and how they become runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.planning import offline_grid
from sweeps.planning.grid import companion_spec, grid
from sweeps.planning.offline_grid import TaskSet
from sweeps.planning.options import SCALING, SweepOptions
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import CommonOptions, OfflineOptions, RunOptions, parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.task_variants import TaskSwitches, part
from tdmpc2.envs.tasks import SUITES, get_suite, get_task
from tdmpc2.runners.registry import agent_class


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        sweep: what to launch.
        how: how every run is carried out.
        options: what of that was given, but for threads, which depend on the cluster.
        planned: the runs.
        arguments: of the command line; those that name datasets hold from any folder.
        sets: of tasks, with the datasets that runs learn them from.
    """

    sweep: SweepOptions
    how: CommonOptions
    options: dict[str, Any]
    planned: list[PlannedRun]
    arguments: tuple[str, ...]
    sets: tuple[TaskSet, ...] = ()

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.how.runs


def parse_request(arguments: Sequence[str]) -> Request:
    """Reads the arguments of the command line.

    Raises:
        UserError: unknown key, or a value of another type or out of range; no such dataset.
    """
    pairs = cli.split_arguments(arguments)
    if pairs.get("data", "here").lower() in ("", "none"):
        raise UserError("data=: the folder of a dataset is needed")
    deciding = ("suite", "methods", "data")
    named = SweepOptions(**{key: pairs[key] for key in deciding if key in pairs})  # type: ignore[arg-type]
    sweep_schema = cli.schema_of(SweepOptions)
    options_class = OfflineOptions if named.multitask else RunOptions
    run_schema = {k: v for k, v in cli.schema_of(options_class).items() if k not in sweep_schema}
    settings = dict(cli.schema_of(TaskSwitches))
    if named.multitask:
        settings = {"physics": settings["physics"]}
    for method in named.method_names:
        settings |= cli.schema_of(agent_class(method).config_class)
    own = {**sweep_schema, **run_schema}
    values = cli.parse_arguments(arguments, {**settings, **own})
    sweep = SweepOptions(**{k: v for k, v in values.items() if k in sweep_schema})
    given = {k: v for k, v in values.items() if k in run_schema and k != "progress"}
    how: CommonOptions = options_class(**{**sweep.preset.options, **given})
    given_settings = {k: v for k, v in values.items() if k not in own}
    options = {"runs": how.runs, **sweep.preset.options, **given}
    options.pop("threads", None)
    if sweep.multitask:
        assert isinstance(how, OfflineOptions)
        _check_suite(sweep)
        sets = offline_grid.task_sets(sweep)
        variants = _variants(sweep, settings)
        planned = offline_grid.plan_runs(sweep, sets, variants, given_settings, how)
        kept = {**pairs, "data": offline_grid.data_argument(sets)}
        lasting = tuple(f"{key}={value}" for key, value in kept.items())
        return Request(sweep, how, options, planned, lasting, sets)
    planned = plan_runs(sweep, given_settings, settings, how.runs)
    return Request(sweep, how, options, planned, tuple(arguments))


def plan_runs(
    sweep: SweepOptions, settings: Mapping[str, Any], schema: Mapping[str, Any], runs: Path
) -> list[PlannedRun]:
    """Every run of a sweep, and those that come along with its suite.

    Args:
        sweep: what to launch.
        settings: of all variants: of methods, and of the tasks.
        schema: types of all settings there are.
        runs: folder of all runs.
    """
    planned, tasks = [], _task_names(sweep)
    missing = {name: missing_requirement(get_task(name), sweep.assets) for name in tasks}
    for name, more in _variants(sweep, schema):
        overrides, task_switches = part({**settings, **more})
        offline_grid.check_shared(overrides, sweep.method_names)
        specs = grid(
            tasks,
            sweep.method_names,
            parse_seeds(sweep.seeds),
            preset=sweep.preset,
            env_steps=sweep.env_steps,
            variant=name,
            overrides=overrides,
            obs=sweep.obs,
            assets=sweep.assets,
            task_switches=task_switches,
        )
        for spec in specs:
            asked = sweep.preset.must_learn and spec.method == "tdmpc2"
            lacks = missing[spec.task]
            planned.append(PlannedRun(spec, spec.run_dir(runs), asked=asked, missing=lacks))
    for companion in sweep.preset.companions if sweep.methods is None else ():
        spec = companion_spec(sweep.preset, companion, sweep.variant or sweep.preset.variant)
        directory = spec.run_dir(runs)
        lacks = missing_requirement(get_task(spec.task), sweep.assets)
        planned.append(
            PlannedRun(spec, directory, options=companion.options, asked=None, missing=lacks)
        )
    return offline_grid.each_once(planned)


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
        name, _, arguments = text.rpartition(":")
        chosen = [] if arguments in ("", "default") else arguments.split("+")
        found.append((name or None, cli.parse_arguments(chosen, schema)))
    return found


def _check_suite(sweep: SweepOptions) -> None:
    """Refuses a suite that is none, and arguments that do not say what to run."""
    suites = sorted((*SUITES, SCALING))
    if sweep.suite is not None and sweep.suite not in suites:
        raise UserError(f"unknown suite '{sweep.suite}'{did_you_mean(sweep.suite, suites)}")
    if sweep.suite != SCALING and (sweep.suite is None) == (sweep.tasks is None):
        raise UserError(f"one of suite= and tasks= is needed (suites: {', '.join(suites)})")


def _task_names(sweep: SweepOptions) -> list[str]:
    """Tasks of the suite, or those named one by one."""
    _check_suite(sweep)
    if sweep.suite is not None:
        return [task.name for task in get_suite(sweep.suite)]
    return [get_task(name.strip()).name for name in (sweep.tasks or "").split(",")]
