"""Launch a sweep: print its plan, then submit its runs to SLURM or train them on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sweeps.execution import local_pool, slurm_queries
from sweeps.execution.exit_codes import ASKS_FIRST, LEFT_OUT
from sweeps.execution.job import FollowUp
from sweeps.execution.process_file import write_file
from sweeps.execution.slurm_jobs import figure_arguments, follow_again, hand_over, lay_out
from sweeps.execution.submission_lease import submission_lease
from sweeps.planning.cores import CoreUse, divide, threads_of
from sweeps.planning.grid import group_seeds
from sweeps.planning.plan import LONG_HOURS, SweepPlan, list_runs, make_plan, show
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from sweeps.tracking.progress import (
    SINGLE_TASK,
    ProgressDisplay,
    evaluations_of,
    print_multitask_summary,
    print_summary,
)
from sweeps.tracking.reference_scores import measure_reference_scores, threshold
from sweeps.tracking.run_states import NO_ANSWER, Observer, may_have_jobs
from sweeps.tracking.sweep_folder import (
    FOLDER,
    SweepFolder,
    job_name,
    record_end,
    relative,
    write_submission,
)
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.numerics.torch_setup import choose_device
from tdmpc2.common.run.resume_checks import check_commit
from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.processes import interrupt_on_signals
from tdmpc2.envs.task_variants import task_of
from tdmpc2.envs.tasks import Task

ADVICE = (
    "Add yes=true to start them on this machine anyway, launch them on a cluster with SLURM, or "
    "reduce tasks=, seeds= or env_steps= (with data=: sizes=, seeds= or num_updates=)."
)


def launch(request: SweepRequest, advice: str = ADVICE, then: FollowUp | None = None) -> int:
    """Launch the runs of a request, unless its plan must be confirmed first.

    Args:
        request: the sweep to launch.
        advice: what to do about a plan that is too long for this machine; appended to the message.
        then: on SLURM, a job to submit after the runs.

    Returns:
        0 if all runs were submitted, or ended (above the threshold, if the suite requires it); 1
        if a run failed; 3 if nothing was started because the plan is long or some runs cannot
        start, and `yes` is not set; 4 if nothing failed but some runs cannot start yet, are held
        back by other seeds or by SLURM jobs that are ending, or will end at a smaller budget, or
        the user's submit limit is reached, or SLURM accepts some jobs, but not others or not the
        job after the runs.

    Raises:
        UserError: the request is invalid, SLURM refuses the first jobs, or it is unknown which runs
            have jobs already.
    """
    cluster = slurm_queries.choose(request.sweep.cluster)
    request.sweep.check_cluster(cluster)
    if cluster == "slurm":
        return _on_slurm(request, then)
    return _on_this_machine(request, advice, inline=cluster == "inline")


def _on_slurm(request: SweepRequest, then: FollowUp | None) -> int:
    partition = slurm_queries.choose_partition(request.sweep.partition)
    gpus = request.sweep.gpus
    if gpus is None:
        gpus = int(partition is not None and partition.has_gpus)
    plan = _plan_on_slurm(request, gpu=gpus > 0)
    show(plan, parallel=None)
    _check_commits(plan)
    follow_up = then is not None or request.sweep.after == "figures"
    layout = lay_out(plan, partition, gpus, follow_up=follow_up)
    print(layout.describe(), flush=True)
    if request.sweep.dry_run:
        list_runs(plan)
        return 0
    folder = SweepFolder.of(request.runs, request.sweep.label, request.planned)
    complete = True
    if not plan.todo:
        list_runs(plan)
        if then is not None:
            with submission_lease(request.runs / FOLDER):
                complete = follow_again(layout, folder, then)
        return _exit_code(plan, complete)
    with submission_lease(request.runs / FOLDER):
        # Plan again: another launch may have submitted some of these runs in the meantime.
        plan = _plan_on_slurm(request, gpu=gpus > 0)
        layout = lay_out(plan, partition, gpus, follow_up=follow_up)
        if not plan.todo:
            print("Nothing submitted: another launch has just submitted the same runs.")
            return _exit_code(plan)
        if layout.is_over_limit:
            print(
                "Nothing submitted: your submit limit is reached. Launch again when some jobs "
                "have ended.",
                flush=True,
            )
            return LEFT_OUT
        _record(request, folder, "slurm")
        complete = hand_over(layout, folder, then)
    return _exit_code(plan, complete)


def _plan_on_slurm(request: SweepRequest, *, gpu: bool) -> SweepPlan:
    """Plan a launch on SLURM; raise an error if it is unknown whether its runs have jobs already.

    Args:
        request: the sweep.
        gpu: whether the runs get a GPU.
    """
    observer = Observer(request.runs)
    if not observer.knows_jobs:
        raise UserError(NO_ANSWER)
    plan = make_plan(request, observer, gpu=gpu)
    todo = set(relative(plan.todo, request.runs))
    for sweep, damage in observer.unread:
        named = {row["directory"] for row in sweep.rows()}  # none if that is damaged, too
        others_only = bool(named) and todo.isdisjoint(named)
        if todo and not others_only and may_have_jobs(sweep):
            raise UserError(
                f"{damage} (jobs of a launch of these runs are unknown, so that they could be "
                f"submitted twice: see `squeue --name={job_name(sweep.name)}`)"
            )
    return plan


def _on_this_machine(request: SweepRequest, advice: str, *, inline: bool) -> int:
    sweep = request.sweep
    gpu = choose_device(request.how.device).type == "cuda"
    cores = _use_of_cores(request, gpu=gpu, inline=inline)
    plan = make_plan(request, Observer(request.runs), gpu=gpu)
    show(plan, parallel=cores.parallel)
    _check_commits(plan)
    if sweep.dry_run:
        list_runs(plan)
        return 0
    if plan.todo and not sweep.yes:
        if plan.hours_to_do > LONG_HOURS:
            unit = "GPU-hours" if plan.gpu else "core-hours"
            print(f"Not started: the runs need more than {LONG_HOURS:.0f} {unit}. {advice}")
            return ASKS_FIRST
        if plan.blocked:
            print(
                f"Not started: {_count_blocked(plan)} cannot start. Add yes=true to start the "
                "others."
            )
            return ASKS_FIRST
    held = {id(run) for run, _ in plan.held}
    startable = [run for run in request.planned if not run.missing and id(run) not in held]
    if not startable:
        return _exit_code(plan)

    interrupt_on_signals()  # which stops the runs
    if not plan.todo:
        return _train(plan, startable, [], cores, inline=inline)
    folder = SweepFolder.of(request.runs, sweep.label, request.planned)
    _record(request, folder, "local")
    submission = folder.new_submission()
    processes = [relative(group, request.runs) for group in plan.groups]
    write_submission(submission, "local", commit=git_commit(), processes=processes)
    try:
        files = []
        options = {**request.options, "progress": None if inline else False}
        for i, group in enumerate(plan.groups, 1):
            own = request.how.threads or threads_of(group, cores.threads)
            files.append(write_file(submission, i, group, {**options, "threads": own}))
        return _train(plan, startable, files, cores, inline=inline)
    finally:
        record_end(submission)


def _train(
    plan: SweepPlan,
    startable: Sequence[PlannedRun],
    files: Sequence[Path],
    cores: CoreUse,
    *,
    inline: bool,
) -> int:
    """Train runs on this machine, and return the exit code of the launch.

    Args:
        plan: plan of the launch.
        startable: the runs to show.
        files: file of each process.
        cores: how the processes share the cores.
        inline: whether all runs are trained in this process.
    """
    request, sweep = plan.request, plan.request.sweep
    single_tasks = [task_of(run.spec) for run in startable if not run.spec.tasks]
    reference_scores = measure_reference_scores(single_tasks, request.runs, assets=sweep.assets)
    with ProgressDisplay(startable) as display:
        if inline:
            local_pool.run_inline(plan.groups, files, on_change=display.update)
        else:
            local_pool.run_all(
                plan.groups,
                files,
                max_parallel=cores.parallel,
                threads=cores.threads,
                on_change=display.update,
            )
    if sweep.multitask:
        code = print_multitask_summary(startable)
    else:
        thresholds = [_threshold(run, reference_scores) for run in startable]
        code = print_summary(startable, thresholds)
    if sweep.after == "figures":
        figures = [sys.executable, "-m", "analysis.make_figures", *figure_arguments(request.runs)]
        code = subprocess.run(figures).returncode or code
    return code or _exit_code(plan)


def _record(request: SweepRequest, folder: SweepFolder, cluster: Literal["local", "slurm"]) -> None:
    """Record a launch of a sweep. A launch of failed runs only leaves the record as it is.

    Otherwise, its changes for one retry, such as `cluster=local`, would hold for all later ones.

    Args:
        request: the sweep.
        folder: its folder.
        cluster: where it is launched.
    """
    suite, keep = request.sweep.suite, request.sweep.only == "failed"
    folder.write(request.to_json(), suite, request.planned, cluster=cluster, keep=keep)


def _use_of_cores(request: SweepRequest, *, gpu: bool, inline: bool) -> CoreUse:
    """Return the threads of each process on this machine, and the number of processes at a time.

    Args:
        request: the sweep.
        gpu: whether the runs use a GPU.
        inline: whether all runs are trained in this process.
    """
    sweep, threads = request.sweep, request.how.threads
    parallel = 1 if inline else sweep.max_parallel
    if gpu:
        # One multi-task run, with its large model and batches, uses a whole GPU.
        at_once = 1 if sweep.multitask else None
        return divide([], usable_cores(), threads or 1, parallel or at_once)
    groups = group_seeds(request.planned, sweep.seeds_per_process)
    return divide(groups, usable_cores(), threads, parallel)


def _exit_code(plan: SweepPlan, complete: bool = True) -> int:
    """Return the exit code of a launch without failures, and list the runs that were left out.

    Args:
        plan: plan of the launch.
        complete: whether everything else was submitted.
    """
    lines = plan.describe_held()
    if plan.blocked:
        print(f"{_count_blocked(plan)} were left out. Launch again when this is settled:")
        lines = [*plan.describe_blocked()[1:], *lines]
    lines += [*plan.describe_smaller(), *plan.describe_ending()]
    if lines:
        print("\n".join(lines), flush=True)
    return 0 if complete and not lines else LEFT_OUT


def _count_blocked(plan: SweepPlan) -> str:
    return f"{len(plan.blocked):,} of {len(plan.planned):,} runs"


def _check_commits(plan: SweepPlan) -> None:
    """Raise an error if a run to resume was started at another commit, before anything starts."""
    if not plan.request.how.allow_commit_change:
        commit = git_commit()
        for run in plan.todo:
            check_commit(run.directory, commit)


def _threshold(run: PlannedRun, reference_scores: dict[Task, dict[str, Any]]) -> float | None:
    """Compute the return above which a run counts as learned; None before its first evaluation."""
    evaluations = evaluations_of(run, SINGLE_TASK)
    if evaluations is None or not (evaluations.env_step == 0).any():
        return None
    return threshold(reference_scores[task_of(run.spec)], evaluations)
