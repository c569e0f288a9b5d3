"""Turn a plan into SLURM jobs: their resources, their arrays, and their submission."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.execution import code_snapshot, slurm, slurm_queries
from sweeps.execution.job import FollowUp, ModuleJob, TrainingJob
from sweeps.execution.process_file import write_file
from sweeps.execution.slurm import Resources
from sweeps.execution.slurm_queries import Partition
from sweeps.planning.plan import SweepPlan
from sweeps.planning.planned_run import SeedGroup
from sweeps.tracking.run_states import ACTIVE, is_queued
from sweeps.tracking.sweep_folder import (
    DRAWS_FIGURES,
    SweepFolder,
    job_name,
    relative,
    write_submission,
)
from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import packages_root

# One core controls the GPU; the others step environments.
CPUS_WITH_GPU = 4
FIGURES_MINUTES = 120
FIGURES_GB = 8


@dataclass(frozen=True)
class JobLayout:
    """Jobs to submit.

    Attributes:
        plan: the plan that they carry out.
        resources: resources of each job.
        jobs: processes of each job.
        sizes: number of jobs of each array.
        at_once: maximum number of jobs of each array that run at a time.
        preemption: what SLURM does with preempted jobs, see `slurm_queries.preemption_of`.
    """

    plan: SweepPlan
    resources: Resources
    jobs: Sequence[Sequence[SeedGroup]]
    sizes: Sequence[int]
    at_once: Sequence[int]
    preemption: str = "OFF"

    def describe(self) -> str:
        """Describe the jobs, their arrays, and the jobs that exceed the user's submit limit."""
        if not self.jobs:
            return "SLURM: nothing to submit"
        partition = self.resources.partition
        where = f"partition {partition}" if partition else "default partition"
        arrays = " + ".join(f"{size:,}" for size in self.sizes)
        as_arrays = f", as arrays of {arrays}" if arrays else ""
        lines = [
            f"SLURM, {where}: {len(self.jobs):,} jobs{as_arrays}; each: {self.resources.describe()}"
        ]
        if sum(self.at_once) < sum(self.sizes):
            lines.append(f"At most {sum(self.at_once):,} jobs run at a time.")
        if self.preemption == "CANCEL":
            lines.append(
                "warning: SLURM cancels preempted jobs here (PreemptMode=CANCEL). Only jobs that "
                "it warns (preempt_send_user_signal) requeue themselves; if `python "
                "sweeps/status.py` shows stale or resumable runs, launch again"
            )
        left = len(self.jobs) - sum(self.sizes)
        if left:
            lines.append(
                f"Your submit limit allows {sum(self.sizes):,} of these jobs now; {left:,} are not "
                "submitted. Launch again when some jobs have ended, or put more runs into each job "
                "(runs_per_gpu=, seeds_per_process=)."
            )
        return "\n".join(lines)

    @property
    def is_over_limit(self) -> bool:
        """Whether there are jobs to submit, but the user's submit limit allows none now."""
        return bool(self.jobs) and not self.sizes


def lay_out(
    plan: SweepPlan, partition: Partition | None, gpus: int, *, follow_up: bool = False
) -> JobLayout:
    """Divide the processes of a plan into jobs and arrays, and determine their resources.

    Args:
        plan: the plan to carry out.
        partition: partition of the jobs; None if unknown.
        gpus: GPUs per job.
        follow_up: whether another job is to be submitted after them. It has the last place below
            the user's submit limit, unless there is only one.

    Raises:
        UserError: `timeout_min=` exceeds the partition's limit, or SLURM refuses the jobs.
    """
    request, sweep = plan.request, plan.request.sweep
    tasks = max(gpus, 1) * sweep.runs_per_gpu
    jobs = [plan.groups[i : i + tasks] for i in range(0, len(plan.groups), tasks)]
    limit = partition.minutes if partition is not None else None
    default = min(slurm.DEFAULT_MINUTES, limit or slurm.DEFAULT_MINUTES)
    minutes = sweep.timeout_min or default
    if limit is not None and minutes > limit:
        assert partition is not None
        raise UserError(
            f"timeout_min={minutes}: partition {partition.name} allows {limit} minutes; omit "
            "timeout_min= (jobs that reach the limit are requeued and their runs resume)"
        )
    resources = Resources(
        partition=sweep.partition,
        gpus=gpus,
        tasks=tasks,
        cpus=sweep.cpus or request.how.threads or (CPUS_WITH_GPU if gpus else 1),
        mem_gb=sweep.mem_gb or tasks * plan.memory_gb(),
        timeout_min=minutes,
        extra=extra_options(sweep.sbatch),
    )
    if not jobs:
        return JobLayout(plan, resources, [], [], [])
    slurm.check(resources)
    left = slurm_queries.jobs_left()
    if follow_up and left is not None and left > 1:
        left -= 1
    sizes = slurm.in_arrays(len(jobs), slurm_queries.max_array_size(), left)
    at_once = slurm.shares(sweep.max_parallel, sizes)
    preemption = slurm_queries.preemption_of(None if partition is None else partition.name)
    return JobLayout(plan, resources, jobs, sizes, at_once, preemption)


def extra_options(text: str | None) -> dict[str, str | bool]:
    """Parse the value of `sbatch=` into options of `sbatch`.

    `account=lab,hold` becomes `--account=lab --hold`. `--hold` submits jobs in a held state: they
    are queued, but start only after `scontrol release`.

    Raises:
        UserError: an option that another argument of the launch sets.
    """
    options: dict[str, str | bool] = {}
    set_by = {
        "partition": "partition=",
        "time": "timeout_min=",
        "mem": "mem_gb=",
        "array": "max_parallel=",
        "cpus-per-task": "cpus=",
        "gpus-per-node": "gpus=",
        "dependency": "after=",
    }
    for argument in (text or "").split(","):
        key, equals, value = argument.strip().lstrip("-").partition("=")
        if key in set_by:
            raise UserError(f"sbatch={text}: {key} is set by {set_by[key]}; use that instead")
        if key:
            options[key] = value if equals else True
    return options


def hand_over(layout: JobLayout, sweep: SweepFolder, then: FollowUp | None = None) -> bool:
    """Submit the jobs, and record which job trains which runs.

    The record is written before and after every submission, so that its jobs are found if the
    launch is interrupted, even between the submission and the record of its id.

    Args:
        layout: the jobs and their arrays.
        sweep: folder of their sweep.
        then: job to submit after them; None for the figures, if the request wants them.

    Returns:
        Whether SLURM has accepted all jobs.

    Raises:
        UserError: SLURM refuses the first jobs.
    """
    request = layout.plan.request
    code, folder, facts = _new_submission(layout, sweep)
    arrays, complete = _submit_arrays(layout, sweep, code, folder, facts)
    if then is None and request.sweep.after == "figures":
        command = ("analysis.make_figures", *figure_arguments(request.runs))
        then = FollowUp(command, f"{folder}#figures", DRAWS_FIGURES)
    if then is not None:
        submitted = [str(array["job"]) for array in arrays if array["job"] is not None]
        after = [*submitted, *_jobs_at_work(layout.plan)]
        facts["arrays"] = arrays
        complete &= submit_follow_up(then, layout.resources, folder, code, after, facts)
    print(f"Logs: {folder}. Show progress with `python sweeps/status.py`.", flush=True)
    return complete


def _submit_arrays(
    layout: JobLayout, sweep: SweepFolder, code: Path, folder: Path, facts: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """Submit the arrays of a launch, as far as SLURM accepts them.

    Args:
        layout: the jobs and their arrays.
        sweep: folder of their sweep.
        code: copy of the code that the jobs run.
        folder: folder of the launch.
        facts: what else the launch records (see `write_submission`).

    Returns:
        The records of the arrays, and whether SLURM has accepted all of them.

    Raises:
        UserError: SLURM refuses the first one, or does not respond to it.
    """
    arrays: list[dict[str, Any]] = []
    submitted = _training_jobs(layout, folder, code)
    start = 0
    for size, at_once in zip(layout.sizes, layout.at_once, strict=True):
        jobs = layout.jobs[start : start + size]
        start += size
        elements = [[relative(group, sweep.runs) for group in groups] for groups in jobs]
        comment = f"{folder}#{len(arrays)}"
        array: dict[str, Any] = {"job": None, "elements": elements, "comment": comment}
        write_submission(folder, "slurm", arrays=[*arrays, array], **facts)
        try:
            array["job"] = slurm.submit(
                list(itertools.islice(submitted, size)),
                layout.resources,
                folder,
                name=job_name(sweep.name),
                code=code,
                at_once=at_once,
                comment=comment,
            )
        except UserError as error:
            unknown = isinstance(error, slurm.NoAnswerError)
            kept = [*arrays, *([array] if unknown else [])]
            write_submission(folder, "slurm", arrays=kept, **facts)
            if not arrays:
                raise
            print(
                f"warning: {start - size:,} of {len(layout.jobs):,} jobs are submitted, but "
                f"{'perhaps ' * unknown}not the others ({error}); launch again when some have "
                "ended",
                flush=True,
            )
            return kept, False
        arrays.append(array)
        write_submission(folder, "slurm", arrays=arrays, **facts)
        print(f"submitted array {array['job']}: {size:,} of {len(layout.jobs):,} jobs", flush=True)
    return arrays, True


def _jobs_at_work(plan: SweepPlan) -> list[str]:
    """Return the ids of the jobs in the queue that earlier launches of the runs have submitted."""
    views = [view for view in plan.views if view.listed and view.state in ACTIVE]
    return sorted({view.job for view in views if view.job is not None})


def submit_follow_up(
    then: FollowUp,
    resources: Resources,
    folder: Path,
    code: Path,
    after: Sequence[str],
    facts: Mapping[str, Any],
) -> bool:
    """Submit a job that runs a module when other jobs have ended, and record it.

    Args:
        then: the job.
        resources: resources of the other jobs.
        folder: folder of the launch.
        code: copy of the code that the job runs.
        after: ids of the other jobs.
        facts: what else the launch records (see `write_submission`).

    Returns:
        Whether SLURM has accepted it; if it has not, or has not responded, a message says how to
        continue.
    """
    own = Resources(
        partition=resources.partition,
        gpus=0,
        tasks=1,
        cpus=1,
        mem_gb=min(FIGURES_GB, resources.mem_gb),
        timeout_min=min(FIGURES_MINUTES, resources.timeout_min),
        extra=resources.extra,
    )
    record: dict[str, object] = {"job": None, "comment": then.comment}
    record |= {"purpose": then.purpose, "after": after}
    write_submission(folder, "slurm", follow_up=record, **facts)
    try:
        record["job"] = slurm.submit(
            [ModuleJob(*then.command)],
            own,
            folder,
            name=job_name(folder.parent.name),
            code=code,
            at_once=1,
            comment=then.comment,
            after=after,
        )
    except UserError as error:
        unknown = isinstance(error, slurm.NoAnswerError)
        if not unknown:
            write_submission(folder, "slurm", **facts)
        print(
            f"warning: the runs are submitted, but {'perhaps ' * unknown}not the job that "
            f"{then.purpose} ({error}); run `{then.line}` when all runs have ended",
            flush=True,
        )
        return False
    write_submission(folder, "slurm", follow_up=record, **facts)
    print(f"submitted job {record['job']}: {then.purpose} when all runs have ended", flush=True)
    return True


def follow_again(layout: JobLayout, sweep: SweepFolder, then: FollowUp) -> bool:
    """Submit a follow-up of jobs that another launch has submitted, unless it is in the queue.

    Args:
        layout: layout of a plan of which nothing is left to submit.
        sweep: folder of the sweep.
        then: the follow-up.

    Returns:
        Whether it is in the queue, or not needed; a message says how to continue if no job in the
        queue trains the runs that are left, so that it would start at once.
    """
    at_work = any(view.state in ACTIVE for view in layout.plan.views)
    if not at_work or is_queued(job_name(sweep.name), then.comment):
        return True
    jobs = _jobs_at_work(layout.plan)
    if not jobs:
        print(
            f"warning: no job in the queue trains the runs that are left, so none {then.purpose}; "
            f"run `{then.line}` when all runs have ended",
            flush=True,
        )
        return False
    code, folder, facts = _new_submission(layout, sweep)
    facts["arrays"] = []
    return submit_follow_up(then, layout.resources, folder, code, jobs, facts)


def _new_submission(layout: JobLayout, sweep: SweepFolder) -> tuple[Path, Path, dict[str, Any]]:
    """Return the copy of the code that jobs run, the folder of the submission, and its facts."""
    os.umask(os.umask(0) | 0o002)  # jobs refuse files that every user can write
    code = code_snapshot.take(packages_root(), sweep.runs / "sweeps" / "code")
    facts = {"commit": git_commit(), "code": code.name, "partition": layout.resources.partition}
    facts["slurm_cluster"] = slurm_queries.cluster_name()
    return code, sweep.new_submission(), facts


def figure_arguments(runs: Path) -> list[str]:
    """Build the arguments that draw the figures of `runs` into `paper_figures/` beside it."""
    return [f"runs={runs}", f"out={runs.parent / 'paper_figures'}"]


def _training_jobs(layout: JobLayout, folder: Path, code: Path) -> Iterator[TrainingJob]:
    """Build the jobs, and write the files of their processes.

    With several GPUs per job, each process uses one of them.

    Args:
        layout: the jobs.
        folder: folder of the launch.
        code: copy of the code that the jobs run.
    """
    request, number = layout.plan.request, itertools.count(1)
    options = {**request.options, "threads": layout.resources.cpus, "progress": False}
    for groups in layout.jobs:
        files = []
        for rank, group in enumerate(groups):
            if layout.resources.gpus > 1:
                options["device"] = f"cuda:{rank // request.sweep.runs_per_gpu}"
            files.append(write_file(folder, next(number), group, options))
        yield TrainingJob(files, code)
