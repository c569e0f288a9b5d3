"""Build a dataset from the episodes that finished runs have kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tdmpc2.common.run.spec import parse_seeds
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.texts import counted, seeds_text
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import BuildOptions
from tdmpc2.data.rows import RowFault, assemble
from tdmpc2.data.sources import Found, SourceRun, find_runs
from tdmpc2.data.writer import DatasetWriter, refuse_finished
from tdmpc2.envs.task_sets import refuse_own_tasks
from tdmpc2.envs.tasks import Task, get_suite, list_tasks

_NAMED = 5  # missing tasks that an error message lists


def build(options: BuildOptions, say: Callable[[str], None] = print) -> Dataset:
    """Build a dataset, or continue an interrupted build.

    Args:
        options: see `BuildOptions`.
        say: called with a line for each run that is skipped or incomplete, and when a build
            continues.

    Raises:
        UserError: a task has no usable run, the runs have several variants, a run is damaged or
            has an invalid value, or the folder contains something else.
    """
    assert options.out is not None
    tasks = chosen_tasks(options.suite, options.tasks)
    refuse_finished(options.out)
    variant = None if options.variant == "all" else options.variant
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    names = [task.name for task in tasks]
    found = find_runs(options.runs, names, method=options.method, variant=variant, seeds=seeds)
    for directory, why in found.left_out.items():
        say(f"skipped: {directory}: {why}")
    _check_complete(found, options)
    for task, own in found.runs.items():
        absent = sorted(set(seeds or ()) - {run.spec["seed"] for run in own})
        if absent:
            say(f"missing: {task}: no usable run of {seeds_text(absent)}")
    runs = [run for task in tasks for run in found.runs[task.name]]
    for run in runs:
        if run.num_lost:
            total = run.num_lost + run.facts()["episodes"]
            say(
                f"incomplete: {run.directory}: {run.num_lost:,} of {total:,} episodes were not "
                "kept (they had left its replay buffer; use keep_replay=true from the start)"
            )
    plan = {
        "command": "build",
        "name": options.suite,
        "tasks": names,
        "shard_mb": options.shard_mb,
        "sources": [[*run.order, [s["sha256"] for s in run.shards]] for run in runs],
    }
    with DatasetWriter(
        options.out, options.suite, tasks, plan, shard_mb=options.shard_mb
    ) as writer:
        left = [task for task in tasks if task.name not in writer.done]
        if len(left) < len(tasks):
            say(f"continuing: {len(tasks) - len(left)} of {len(tasks)} tasks are already complete")
        _write(writer, left, found)
        return writer.finish({"command": "build", "sources": [run.facts() for run in runs]})


def chosen_tasks(suite: str | None, tasks: str | None, option: str = "tasks") -> tuple[Task, ...]:
    """Return the tasks of a suite, or of a comma-separated list.

    Args:
        suite: name of the suite; None for the list.
        tasks: the list.
        option: option that the list is the value of, for messages.

    Raises:
        UserError: a task is unknown, named twice or a Gymnasium environment, or the list is empty.
    """
    if suite is not None:
        return get_suite(suite)
    refuse_own_tasks(tasks or "", option)
    return list_tasks(tasks or "", option)


def _check_complete(found: Found, options: BuildOptions) -> None:
    """Check that every task has a run, and that there are several variants only on request."""
    missing = [task for task, runs in found.runs.items() if not runs]
    if missing:
        more = "" if len(missing) <= _NAMED else f" and {len(missing) - _NAMED} more"
        chosen = [
            f"{name}={value}"
            for name, value in (("variant", options.variant), ("seeds", options.seeds))
            if value not in (None, "all")
        ]
        which = "".join(f"of {one} " for one in chosen)
        raise UserError(
            f"{options.runs}: no finished {options.method} run {which}with kept episodes of "
            f"{', '.join(missing[:_NAMED])}{more} "
            f"({len(missing)} of {counted(len(found.runs), 'task')}); see the folders "
            "METHOD/VARIANT/TASK/ in it"
        )
    variants = sorted({run.spec["variant"] for runs in found.runs.values() for run in runs})
    if len(variants) > 1 and options.variant is None:
        raise UserError(
            f"{options.runs}: runs of several variants ({', '.join(variants)}): choose one with "
            "variant=, or use variant=all"
        )


def _write(writer: DatasetWriter, tasks: Sequence[Task], found: Found) -> None:
    """Copy the episodes of the tasks into the dataset, one task after the other."""
    total = sum(_count(found.runs[task.name]) for task in tasks)
    with tqdm(total=total, unit=" episodes", leave=False, disable=None) as bar:
        for task in tasks:
            bar.set_description(task.name)
            shards = writer.open_task(task, "float32")
            for run in found.runs[task.name]:
                for path, a in run.episodes(task):
                    rows = assemble(a["obs"], a["action"], a["reward"], a["length"])
                    locate = partial(_locate, path, task)
                    shards.add(rows, a["length"], a["terminated"], locate)
                    bar.update(len(a["length"]))
            writer.finish_task(shards)


def _locate(path: Path, task: Task, fault: RowFault) -> str:
    return f"{path}: {task.name}, row {fault.row}"


def _count(runs: Collection[SourceRun]) -> int:
    return sum(run.facts()["episodes"] for run in runs)
