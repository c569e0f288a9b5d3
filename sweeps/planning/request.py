"""`SweepRequest`: what is to be launched, from the command line or from code, and its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeps.planning import offline_grid
from sweeps.planning.grid import companion_spec, grid
from sweeps.planning.offline_grid import TaskSet
from sweeps.planning.options import SCALING, LaunchOptions, SweepOptions
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import (
    CommonOptions,
    OfflineOptions,
    RunOptions,
    RunSpec,
    parse_seeds,
)
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Kind, require_no_option
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.task_variants import TaskSwitches, part
from tdmpc2.envs.tasks import SUITES, get_suite, get_task, list_tasks
from tdmpc2.runners.registry import METHODS, config_class

Variant = tuple[str | None, Mapping[str, Any]]
Schema = Mapping[str, Kind]
Part = tuple[str, str, str]
"""Method, variant and task."""


@dataclass(frozen=True)
class SweepRequest:
    """A sweep to launch.

    `SweepRequest(SweepOptions(tasks="walker-walk"), settings={"num_q": 2})` is the same as
    `tasks=walker-walk num_q=2` on the command line.

    Attributes:
        sweep: options of the launch.
        given: options of every run that differ from the defaults and from the suite's preset:
            fields of `RunOptions`, or of `OfflineOptions` with a dataset.
        settings: method settings and task switches that all variants share.
        variants: name and settings of each variant; None derives the name from the settings. If
            empty, there is one variant: the shared settings.
        parts: methods, variants and tasks of the runs to launch; all if empty.
    """

    sweep: SweepOptions
    given: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    parts: tuple[Part, ...] = ()

    @classmethod
    def from_arguments(
        cls, arguments: Sequence[str], last: SweepRequest | None = None
    ) -> SweepRequest:
        """Parse the arguments of `sweeps/launch.py`.

        Args:
            arguments: `key=value` arguments of the command line.
            last: request that the arguments change; None for a new one.

        Raises:
            UserError: an unknown key, a value of the wrong type or out of range, or a missing
                dataset.
        """
        last = cls(SweepOptions()) if last is None else last
        own, shared = schemas(deciding(arguments, last.sweep))
        every = {**shared, **own, **cli.schema_of(LaunchOptions)}
        values = cli.parse_arguments(arguments, every)
        text = values.pop("variants", None)
        options = cli.schema_of(SweepOptions)
        request = cls(
            replace(last.sweep, **_chosen(values, options)),
            {**last.given, **_chosen(values, own)},
            {**last.settings, **_chosen(values, shared)},
            last.variants if text is None else tuple(parse_variants(text, shared)),
            last.parts if text is None else (),
        )
        request.check()
        return request

    def to_json(self) -> dict[str, Any]:
        """Return the request as values of JSON; paths are absolute, so that it holds anywhere."""
        sweep = self.sweep.to_json()
        if self.sweep.data is not None:
            sweep["data"] = offline_grid.absolute(self.sweep.data)
        given = {**self.given, "runs": self.runs}
        return {
            "sweep": sweep,
            "given": {k: str(v) if isinstance(v, Path) else v for k, v in given.items()},
            "settings": dict(self.settings),
            "variants": [[name, dict(settings)] for name, settings in self.variants],
            "parts": [list(one) for one in self.parts],
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> SweepRequest:
        """Return the request that `to_json` has described.

        Raises:
            UserError: an option is unknown, or a value is of another type or out of range.
        """
        sweep = SweepOptions.from_json(facts["sweep"])
        how = _options_class(sweep).from_json(facts["given"])
        given = {name: getattr(how, name) for name in facts["given"]}
        variants = tuple((name, settings) for name, settings in facts["variants"])
        parts = tuple((method, variant, task) for method, variant, task in facts.get("parts", ()))
        return cls(sweep, given, facts["settings"], variants, parts)

    def check(self) -> None:
        """Check all names and values; cheap, as torch is not imported for methods of this suite.

        Raises:
            UserError: a name is unknown, a value is invalid, or a dataset is missing.
        """
        _ = self.planned

    @cached_property
    def how(self) -> CommonOptions:
        """Options of every run, defaults included."""
        return _options_class(self.sweep)(**{**self.sweep.preset.options, **self.given})

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.how.runs.resolve()

    @property
    def options(self) -> dict[str, Any]:
        """Options of every run that were given or come from the suite's preset.

        They do not contain `threads`, which depends on the cluster, nor `progress`.
        """
        options = {**self.sweep.preset.options, **self.given, "runs": self.runs}
        return {k: v for k, v in options.items() if k not in ("threads", "progress")}

    @cached_property
    def sets(self) -> tuple[TaskSet, ...]:
        """Task sets with their datasets, for multi-task runs."""
        return offline_grid.task_sets(self.sweep) if self.sweep.multitask else ()

    @cached_property
    def planned(self) -> list[PlannedRun]:
        """The runs of the sweep.

        Raises:
            UserError: a name is unknown, a value is invalid, or a dataset is missing.
        """
        _check_suite(self.sweep)
        if self.variants and self.sweep.variant is not None:
            raise UserError("variant= and variants= exclude each other")
        variants = self.variants or ((self.sweep.variant, {}),)
        if self.sweep.multitask:
            assert isinstance(self.how, OfflineOptions)
            how = replace(self.how, runs=self.runs)
            return offline_grid.plan_runs(self.sweep, self.sets, variants, self.settings, how)
        joined = [(name, {**self.settings, **more}) for name, more in variants]
        planned = plan_runs(self.sweep, joined, self.runs)
        return [run for run in planned if not self.parts or part_of(run.spec) in self.parts]


def part_of(spec: RunSpec) -> Part:
    """Return method, variant and task of a single-task run."""
    return spec.method, spec.variant, spec.task


def _options_class(sweep: SweepOptions) -> type[RunOptions] | type[OfflineOptions]:
    return OfflineOptions if sweep.multitask else RunOptions


def _chosen(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in schema}


def deciding(arguments: Sequence[str], last: SweepOptions) -> SweepOptions:
    """Read suite, methods and data, which decide which other keys are valid.

    Args:
        arguments: arguments of the command line.
        last: options that the arguments change.

    Raises:
        UserError: they exclude each other, or no dataset is named.
    """
    found = {key: cli.peek(arguments, key) for key in ("suite", "methods", "data")}
    if found["data"] is not None and found["data"].lower() in ("", "none"):
        raise UserError("data=: the folder of a dataset is needed")
    known: dict[str, Any] = {k: v for k, v in found.items() if v is not None}
    return replace(last, **known)


def schemas(sweep: SweepOptions) -> tuple[Schema, Schema]:
    """Return what the command line may set besides the options of the launch.

    Args:
        sweep: suite, methods and data of the launch.

    Returns:
        The options of every run, and the settings of the methods and tasks.

    Raises:
        UserError: a setting of a method of the user has the name of an option.
    """
    options = cli.schema_of(_options_class(sweep))
    switches = cli.schema_of(TaskSwitches)
    settings = {"physics": switches["physics"]} if sweep.multitask else dict(switches)
    taken = {**options, **switches, **cli.schema_of(LaunchOptions)}
    for method in sweep.method_names:
        config = config_class(method)
        require_no_option(config, taken)
        settings |= cli.schema_of(config)
    return {k: v for k, v in options.items() if k not in cli.schema_of(SweepOptions)}, settings


def every_option() -> Schema:
    """Return the options and settings of launches of any method, with or without a dataset.

    If methods declare a setting differently, one of the declarations is returned.
    """
    options = (LaunchOptions, SweepOptions, RunOptions, OfflineOptions, TaskSwitches)
    return cli.schema_of(*options, *map(config_class, METHODS))


def plan_runs(sweep: SweepOptions, variants: Iterable[Variant], runs: Path) -> list[PlannedRun]:
    """List the single-task runs of a sweep, including the companion runs of its suite.

    Args:
        sweep: options of the launch.
        variants: name of each variant, and its settings with the shared ones.
        runs: folder of all runs.
    """
    planned, tasks = [], _task_names(sweep)
    missing = {name: missing_requirement(get_task(name), sweep.assets) for name in tasks}
    for name, settings in variants:
        overrides, task_switches = part(settings)
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
        if companion.task not in tasks:
            continue
        spec = companion_spec(sweep.preset, companion, sweep.variant or sweep.preset.variant)
        run = PlannedRun(spec, spec.run_dir(runs), options=companion.options, must_learn=None)
        run.missing = missing_requirement(get_task(spec.task), sweep.assets)
        planned.append(run)
    return offline_grid.each_once(planned)


def parse_variants(text: str, schema: Schema) -> Iterable[Variant]:
    """Parse the value of `variants=` into names and settings.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    for variant in text.split(","):
        name, _, joined = variant.rpartition(":")
        arguments = [] if joined in ("", "default") else joined.split("+")
        yield name or None, cli.parse_arguments(arguments, schema)


def _check_suite(sweep: SweepOptions) -> None:
    """Reject an unknown suite, and arguments that name neither suite nor tasks."""
    suites = sorted((*SUITES, SCALING))
    if sweep.suite is not None and sweep.suite not in suites:
        raise UserError(f"unknown suite '{sweep.suite}'{did_you_mean(sweep.suite, suites)}")
    if sweep.suite is None and sweep.tasks is None:
        raise UserError(f"suite= or tasks= is needed (suites: {', '.join(suites)})")


def _task_names(sweep: SweepOptions) -> list[str]:
    """List the task names of `tasks=`, or those of `suite=`."""
    if sweep.tasks is None:
        return [task.name for task in get_suite(sweep.suite or "")]
    return [task.name for task in list_tasks(sweep.tasks, suite=sweep.suite)]
