"""Expand task sets, datasets and model sizes into the multi-task runs of a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.planning.options import SCALING, SIZES, SweepOptions
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import OfflineOptions, RunSpec, parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import user_path
from tdmpc2.common.system.texts import size_text
from tdmpc2.envs.task_variants import part
from tdmpc2.envs.tasks import SUITES, list_tasks
from tdmpc2.runners.registry import agent_class, config_class, make_config, require_multitask
from tdmpc2.runners.specs import OFFLINE_UPDATES, make_offline_spec

if TYPE_CHECKING:
    from tdmpc2.data.dataset import Dataset

Variants = Sequence[tuple[str | None, Mapping[str, Any]]]


@dataclass(frozen=True)
class TaskSet:
    """Tasks that one agent learns, and the dataset that it learns them from.

    Attributes:
        text: name of a suite, or comma-separated task names.
        tasks: task names, in the order of the task embedding.
        dataset: dataset with transitions of all tasks.
        name: name of the set in `data=NAME=DIR`; None if only the folder was given.
    """

    text: str
    tasks: tuple[str, ...]
    dataset: Dataset
    name: str | None

    @property
    def label(self) -> str:
        """Name in tables: the suite, or the number of tasks."""
        return self.text if self.text in SUITES else f"{len(self.tasks)} tasks"

    def describe(self) -> str:
        """Summarize the dataset in one line: tasks, episodes, transitions and folder."""
        facts = [self.dataset.facts(task) for task in self.tasks]
        episodes, transitions = (sum(f[key] for f in facts) for key in ("episodes", "transitions"))
        num = f" ({len(self.tasks)} tasks)" if self.text in SUITES else ""
        return (
            f"{self.label}{num}: {episodes:,} episodes, {transitions:,} transitions in "
            f"{self.dataset.folder}"
        )


def task_sets(sweep: SweepOptions) -> tuple[TaskSet, ...]:
    """Open the datasets of `data=` and determine the task set of each.

    Raises:
        UserError: an unknown set or dataset, a task without data, or a set that is given twice.
    """
    sets: dict[str, TaskSet] = {}
    for name, folder in _entries(sweep.data or ""):
        task_set = _task_set(sweep, name, folder)
        if task_set.text in sets:
            raise UserError(f"data={sweep.data}: {task_set.text} is given twice")
        sets[task_set.text] = task_set
    return tuple(sets.values())


def _entries(text: str) -> Iterator[tuple[str | None, Path]]:
    """Split `mt30=DIR,DIR` into names (None if not given) and folders."""
    first, _, rest = text.partition("=")
    whole = rest if first in SUITES else text
    # The path of a single folder may contain commas.
    single = bool(whole) and os.path.isdir(user_path(whole, "data"))
    for entry in [text] if single else text.split(","):
        name, equals, folder = entry.partition("=")
        named = bool(equals) and "/" not in name  # the path of a folder may contain = too
        if not (folder if named else entry):
            raise UserError(f"data={text}: a folder is missing")
        if named and name not in SUITES:
            raise UserError(f"data={entry}: unknown task set '{name}'{did_you_mean(name, SUITES)}")
        path = user_path(folder if named else entry, "data").resolve()
        yield name if named else None, path


def _task_set(sweep: SweepOptions, name: str | None, folder: Path) -> TaskSet:
    from tdmpc2.data.dataset import Dataset

    dataset = Dataset.open(folder)
    suite = None if sweep.suite == SCALING else sweep.suite
    if name is not None and suite not in (None, name):
        raise UserError(
            f"data={name}={folder}: suite={suite} needs a dataset of {suite}, not of {name}"
        )
    whole = name or suite or (dataset.name if dataset.name in SUITES else None)
    if sweep.tasks is not None:
        tasks = tuple(task.name for task in list_tasks(sweep.tasks, suite=whole))
        text = ",".join(tasks)
    else:
        tasks = _names(whole) if whole else dataset.tasks
        text = whole or ",".join(tasks)
    dataset.require(tasks)
    if len(tasks) < 2:
        raise UserError(f"{folder}: multi-task training needs at least two tasks, not only {text}")
    return TaskSet(text, tasks, dataset, name)


def _names(suite: str) -> tuple[str, ...]:
    return tuple(task.name for task in SUITES[suite])


def absolute(data: str) -> str:
    """Return a value of `data=` with absolute paths."""
    return ",".join(f"{name}={path}" if name else str(path) for name, path in _entries(data))


def plan_runs(
    sweep: SweepOptions,
    sets: Sequence[TaskSet],
    variants: Variants,
    settings: Mapping[str, Any],
    how: OfflineOptions,
) -> list[PlannedRun]:
    """List every run of a multi-task sweep: variants x methods x task sets x sizes x seeds.

    Args:
        sweep: options of the launch.
        sets: task sets with their datasets.
        variants: name and settings of each variant.
        settings: method settings that all variants share.
        how: options of every run.

    Raises:
        UserError: an unknown name, a value out of range, or a method that does not support
            multi-task training.
    """
    planned = []
    for name, more in variants:
        given = {**settings, **more}
        check_shared(given, sweep.method_names)
        if sweep.suite == SCALING and "model_size" in given:
            raise UserError(f"model_size={given['model_size']}: use sizes= with suite={SCALING}")
        for method in sweep.method_names:
            require_multitask(method)
            for task_set in sets:
                for size in _sizes(sweep, method):
                    for seed in parse_seeds(sweep.seeds):
                        spec = _spec(sweep, method, task_set, size, seed, name, given)
                        _check_accumulate(spec, how)
                        planned.append(_planned(spec, task_set, how.runs))
    return each_once(planned)


def _sizes(sweep: SweepOptions, method: str) -> list[str | None]:
    """List the model sizes of a scaling study; else return None, the size of the settings."""
    if sweep.suite != SCALING:
        return [None]
    known = cli.schema_of(config_class(method))["model_size"].choices
    sizes = [size.strip() for size in sweep.sizes.split(",")] if sweep.sizes else list(SIZES)
    for size in sizes:
        if size not in known:
            hint = f" (valid: {', '.join(known)})"
            raise UserError(f"sizes={sweep.sizes}: {method} has no model of size '{size}'{hint}")
    return list(sizes)


def _spec(
    sweep: SweepOptions,
    method: str,
    task_set: TaskSet,
    size: str | None,
    seed: int,
    variant: str | None,
    settings: Mapping[str, Any],
) -> RunSpec:
    sized = {} if size is None else {"model_size": size}
    overrides, switches = part(settings)
    # Figures average runs with equal variant names, so each size needs a name of its own.
    name = variant if variant is None or size is None else f"{variant}+model_size-{size}"
    return make_offline_spec(
        method,
        task_set.text,
        seed,
        task_set.dataset.checksum,
        num_updates=OFFLINE_UPDATES if sweep.num_updates is None else sweep.num_updates,
        variant=name,
        overrides={**overrides, **sized},
        physics=switches.get("physics", "paper"),
    )


def _planned(spec: RunSpec, task_set: TaskSet, runs: Path) -> PlannedRun:
    default = config_class(spec.method).model_size
    size = dict(spec.overrides).get("model_size", default)
    kind = f"{task_set.label} {size_text(size)}"
    data = {"data": task_set.dataset.folder}
    return PlannedRun(spec, spec.run_dir(runs), options=data, must_learn=None, kind=kind)


def _check_accumulate(spec: RunSpec, how: OfflineOptions) -> None:
    """Reject a number of micro-batches that the method or its batch size does not allow."""
    if how.accumulate == 1:
        return
    if not agent_class(spec.method).micro_batches:
        raise UserError(
            f"accumulate={how.accumulate}: {spec.method} does not support micro-batches; use "
            "methods=tdmpc2"
        )
    size = make_config(spec.method, dict(spec.overrides), spec.task).batch_size
    if size % how.accumulate:
        raise UserError(f"accumulate={how.accumulate}: batch_size={size} is not a multiple of it")


def check_shared(settings: Mapping[str, Any], methods: Sequence[str]) -> None:
    """Check that every method has all of the given settings.

    Raises:
        UserError: a method lacks one of them.
    """
    for method in methods:
        known = cli.schema_of(config_class(method))
        for name in settings:
            if name not in known:
                raise UserError(
                    f"{name}: {method} has no such setting; choose methods that have it with "
                    "methods="
                )


def each_once(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Remove duplicate runs, which occur if several variants have the same settings."""
    return list({run.directory: run for run in planned}.values())
