"""Multi-task runs of a sweep: sets of tasks, the datasets they are learned from, model sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sweeps.planning.options import SCALING, SIZES, SweepOptions
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import OfflineOptions, RunSpec, parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.data.dataset import Dataset
from tdmpc2.envs.task_variants import part
from tdmpc2.envs.tasks import SUITES, get_task
from tdmpc2.runners.registry import (
    OFFLINE_UPDATES,
    agent_class,
    make_config,
    make_offline_spec,
    require_multitask,
)

Variants = Sequence[tuple[str | None, Mapping[str, Any]]]


@dataclass(frozen=True)
class TaskSet:
    """Tasks that one agent learns, and what from.

    Attributes:
        text: a suite, or task names by commas.
        tasks: names, in the order of the task embedding.
        dataset: that holds all of them.
        name: of the set in `data=`; None where only the folder was given.
    """

    text: str
    tasks: tuple[str, ...]
    dataset: Dataset
    name: str | None

    @property
    def label(self) -> str:
        """For tables."""
        return self.text if self.text in SUITES else f"{len(self.tasks)} tasks"

    def describe(self) -> str:
        """For people."""
        facts = [self.dataset.facts(task) for task in self.tasks]
        episodes, transitions = (sum(f[key] for f in facts) for key in ("episodes", "transitions"))
        num = f" ({len(self.tasks)} tasks)" if self.text in SUITES else ""
        return (
            f"{self.label}{num}: {episodes:,} episodes, {transitions:,} transitions in "
            f"{self.dataset.folder}"
        )


def task_sets(sweep: SweepOptions) -> tuple[TaskSet, ...]:
    """The sets of tasks of `data=`, each with its dataset, opened.

    Raises:
        UserError: no such set or dataset, a task without data, or a set given twice.
    """
    found: dict[str, TaskSet] = {}
    for name, folder in _entries(sweep.data or ""):
        one = _task_set(sweep, name, folder)
        if one.text in found:
            raise UserError(f"data={sweep.data}: {one.text} is given twice")
        found[one.text] = one
    return tuple(found.values())


def _entries(text: str) -> Iterator[tuple[str | None, Path]]:
    """Names, where they are given, and folders of `mt30=DIR,DIR`."""
    for entry in text.split(","):
        name, equals, folder = entry.partition("=")
        named = bool(equals) and "/" not in name  # a folder's name may hold an = too
        if not (folder if named else entry):
            raise UserError(f"data={text}: a folder is missing")
        if named and name not in SUITES:
            raise UserError(f"data={entry}: unknown set of tasks{did_you_mean(name, SUITES)}")
        path = Path(folder if named else entry).expanduser().resolve()
        yield name if named else None, path


def _task_set(sweep: SweepOptions, name: str | None, folder: Path) -> TaskSet:
    dataset = Dataset.open(folder)
    suite = None if sweep.suite == SCALING else sweep.suite
    if name is not None and suite not in (None, name):
        raise UserError(f"data={name}={folder}: suite={suite} takes data of {suite}")
    whole = name or suite or (dataset.name if dataset.name in SUITES else None)
    if sweep.tasks is not None:
        tasks = tuple(get_task(argument.strip()).name for argument in sweep.tasks.split(","))
        text = ",".join(tasks)
        twice = [task for task in tasks if tasks.count(task) > 1]
        if twice:
            raise UserError(f"tasks={sweep.tasks}: {twice[0]} is given twice")
        outside = [t for t in tasks if whole and t not in _names(whole)]
        if outside:
            raise UserError(f"tasks={sweep.tasks}: {outside[0]} is none of {whole}")
    else:
        tasks = _names(whole) if whole else dataset.tasks
        text = whole or ",".join(tasks)
    dataset.require(tasks)
    if len(tasks) < 2:
        raise UserError(f"{folder}: one agent learns several tasks from it, not {text} alone")
    return TaskSet(text, tasks, dataset, name)


def _names(suite: str) -> tuple[str, ...]:
    return tuple(task.name for task in SUITES[suite])


def data_argument(sets: Sequence[TaskSet]) -> str:
    """The value of `data=` that means these sets, from any folder."""
    folders = ((f"{one.name}=" if one.name else "", one.dataset.folder) for one in sets)
    return ",".join(f"{name}{folder}" for name, folder in folders)


def plan_runs(
    sweep: SweepOptions,
    sets: Sequence[TaskSet],
    variants: Variants,
    settings: Mapping[str, Any],
    how: OfflineOptions,
) -> list[PlannedRun]:
    """Every run of a multi-task sweep: variants x methods x sets of tasks x sizes x seeds.

    Args:
        sweep: what to launch.
        sets: of tasks.
        variants: names and settings.
        settings: of all variants.
        how: runs are carried out.

    Raises:
        UserError: anything unknown or out of range, or a method that learns one task at a time.
    """
    planned = []
    for name, more in variants:
        given = {**settings, **more}
        check_shared(given, sweep.method_names)
        if sweep.suite == SCALING and "model_size" in given:
            raise UserError(f"model_size={given['model_size']}: suite={SCALING} takes sizes=")
        for method in sweep.method_names:
            require_multitask(method)
            for one in sets:
                for size in _sizes(sweep, method):
                    for seed in parse_seeds(sweep.seeds):
                        spec = _spec(sweep, method, one, size, seed, name, given)
                        _check_parts(spec, how)
                        planned.append(_planned(spec, one, how.runs))
    return each_once(planned)


def _sizes(sweep: SweepOptions, method: str) -> list[str | None]:
    """Model sizes of a scaling study; elsewhere the one that the settings say."""
    if sweep.suite != SCALING:
        return [None]
    known = get_args(cli.schema_of(agent_class(method).config_class)["model_size"])
    sizes = [size.strip() for size in sweep.sizes.split(",")] if sweep.sizes else list(SIZES)
    for size in sizes:
        if size not in known:
            hint = f" (valid: {', '.join(known)})"
            raise UserError(f"sizes={sweep.sizes}: {method} has no model of size '{size}'{hint}")
    return list(sizes)


def _spec(
    sweep: SweepOptions,
    method: str,
    one: TaskSet,
    size: str | None,
    seed: int,
    variant: str | None,
    settings: Mapping[str, Any],
) -> RunSpec:
    sized = {} if size is None else {"model_size": size}
    overrides, switches = part(settings)
    # Runs of one name are averaged, and those of several sizes must not be.
    name = variant if variant is None or size is None else f"{variant}+model_size-{size}"
    return make_offline_spec(
        method,
        one.text,
        seed,
        one.dataset.checksum,
        num_updates=OFFLINE_UPDATES if sweep.num_updates is None else sweep.num_updates,
        variant=name,
        overrides={**overrides, **sized},
        physics=switches.get("physics", "paper"),
    )


def _planned(spec: RunSpec, one: TaskSet, runs: Path) -> PlannedRun:
    default = agent_class(spec.method).config_class.model_size
    size = dict(spec.overrides).get("model_size", default)
    kind = f"{one.label} {size}{'M' * str(size).isdigit()}"
    data = {"data": str(one.dataset.folder)}
    return PlannedRun(spec, spec.run_dir(runs), options=data, asked=None, kind=kind)


def _check_parts(spec: RunSpec, how: OfflineOptions) -> None:
    """Refuses parts of a batch that there cannot be."""
    if how.accumulate == 1:
        return
    if spec.method != "tdmpc2":
        raise UserError(
            f"accumulate={how.accumulate}: batches of {spec.method} cannot be divided; say "
            "methods=tdmpc2"
        )
    size = make_config(spec.method, dict(spec.overrides), spec.task).batch_size
    if size % how.accumulate:
        raise UserError(f"accumulate={how.accumulate}: batch_size={size} is no multiple of it")


def check_shared(settings: Mapping[str, Any], methods: Sequence[str]) -> None:
    """Refuses settings that only some of several methods have."""
    for method in methods:
        known = cli.schema_of(agent_class(method).config_class)
        for name in settings:
            if name not in known:
                raise UserError(f"{name}: {method} has no such setting; say which methods= have it")


def each_once(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs, those that several variants mean but once."""
    return list({run.directory: run for run in planned}.values())
