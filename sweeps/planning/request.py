"""Parse the arguments of `sweeps/launch.py` and expand them into planned runs."""

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
from tdmpc2.envs.tasks import SUITES, get_suite, get_task, list_tasks
from tdmpc2.runners.registry import METHODS, config_class


@dataclass(frozen=True)
class Request:
    """A parsed launch: its options and the runs that it consists of.

    Attributes:
        sweep: options of the launch.
        how: options of every run, defaults included.
        options: options of every run that were given or come from the suite's preset; without
            `threads`, which depends on the cluster.
        planned: the runs.
        arguments: arguments of the command line as `key=value`; paths of datasets are absolute, so
            that a retry works from any folder.
        sets: task sets with their datasets, for multi-task runs.
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
    """Parse the arguments of the command line.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range, or a missing dataset.
    """
    # Suite, methods and data decide which other keys are valid, so they are read first.
    deciding = {key: cli.peek(arguments, key) for key in ("suite", "methods", "data")}
    if deciding["data"] is not None and deciding["data"].lower() in ("", "none"):
        raise UserError("data=: the folder of a dataset is needed")
    first = SweepOptions(**{k: v for k, v in deciding.items() if v is not None})  # type: ignore[arg-type]
    sweep_schema = cli.schema_of(SweepOptions)
    options_class = OfflineOptions if first.multitask else RunOptions
    run_schema = {k: v for k, v in cli.schema_of(options_class).items() if k not in sweep_schema}
    setting_schema = dict(cli.schema_of(TaskSwitches))
    if first.multitask:
        setting_schema = {"physics": setting_schema["physics"]}
    for method in first.method_names:
        setting_schema |= cli.schema_of(config_class(method))
    option_schema = {**sweep_schema, **run_schema}
    schema = {**setting_schema, **option_schema}
    pairs = cli.split_arguments(arguments, cli.flags_of(schema))
    values = cli.parse_arguments(arguments, schema)
    sweep = SweepOptions(**{k: v for k, v in values.items() if k in sweep_schema})
    given = {k: v for k, v in values.items() if k in run_schema and k != "progress"}
    how: CommonOptions = options_class(**{**sweep.preset.options, **given})
    settings = {k: v for k, v in values.items() if k not in option_schema}
    options = {"runs": how.runs, **sweep.preset.options, **given}
    options.pop("threads", None)
    if sweep.multitask:
        assert isinstance(how, OfflineOptions)
        _check_suite(sweep)
        sets = offline_grid.task_sets(sweep)
        variants = _variants(sweep, setting_schema)
        planned = offline_grid.plan_runs(sweep, sets, variants, settings, how)
        pairs["data"] = offline_grid.data_argument(sets)
    else:
        sets, planned = (), plan_runs(sweep, settings, setting_schema, how.runs)
    repeatable = tuple(f"{key}={value}" for key, value in pairs.items())
    return Request(sweep, how, options, planned, repeatable, sets)


def all_flags() -> frozenset[str]:
    """Return the names of the boolean options and settings of launches of any method."""
    options = (SweepOptions, RunOptions, OfflineOptions, TaskSwitches)
    configs = map(config_class, METHODS)
    return frozenset().union(*(cli.flags_of(cli.schema_of(c)) for c in (*options, *configs)))


def plan_runs(
    sweep: SweepOptions, settings: Mapping[str, Any], schema: Mapping[str, Any], runs: Path
) -> list[PlannedRun]:
    """List the single-task runs of a sweep, including the companion runs of its suite.

    Args:
        sweep: options of the launch.
        settings: method settings and task switches that all variants share.
        schema: names and types of all valid settings.
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
            run = PlannedRun(spec, spec.run_dir(runs), missing=missing[spec.task])
            run.must_learn = spec.method in sweep.preset.must_learn
            planned.append(run)
    for companion in sweep.preset.companions if sweep.methods is None else ():
        spec = companion_spec(sweep.preset, companion, sweep.variant or sweep.preset.variant)
        run = PlannedRun(spec, spec.run_dir(runs), options=companion.options, must_learn=None)
        run.missing = missing_requirement(get_task(spec.task), sweep.assets)
        planned.append(run)
    return offline_grid.each_once(planned)


def _variants(
    sweep: SweepOptions, schema: Mapping[str, Any]
) -> list[tuple[str | None, dict[str, Any]]]:
    """Parse `variants=` into names and settings; without it, return a single empty variant."""
    if sweep.variants is None:
        return [(sweep.variant, {})]
    if sweep.variant is not None:
        raise UserError("variant= and variants= exclude each other")
    variants: list[tuple[str | None, dict[str, Any]]] = []
    for text in sweep.variants.split(","):
        name, _, joined = text.rpartition(":")
        arguments = [] if joined in ("", "default") else joined.split("+")
        variants.append((name or None, cli.parse_arguments(arguments, schema)))
    return variants


def _check_suite(sweep: SweepOptions) -> None:
    """Reject an unknown suite, and arguments that name both or neither of suite and tasks."""
    suites = sorted((*SUITES, SCALING))
    if sweep.suite is not None and sweep.suite not in suites:
        raise UserError(f"unknown suite '{sweep.suite}'{did_you_mean(sweep.suite, suites)}")
    if sweep.suite != SCALING and (sweep.suite is None) == (sweep.tasks is None):
        raise UserError(f"exactly one of suite= and tasks= is needed (suites: {', '.join(suites)})")


def _task_names(sweep: SweepOptions) -> list[str]:
    """List the task names of `suite=` or `tasks=`."""
    _check_suite(sweep)
    if sweep.suite is not None:
        return [task.name for task in get_suite(sweep.suite)]
    return [task.name for task in list_tasks(sweep.tasks or "")]
