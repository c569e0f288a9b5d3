"""Launches a sweep: `python sweeps/launch.py suite=smoke seeds=2`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sweeps.execution import local_pool, slurm
from sweeps.execution.slurm_jobs import figure_arguments, hand_over, lay_out
from sweeps.planning.options import SweepOptions
from sweeps.planning.plan import LONG_HOURS, SweepPlan, list_runs, make_plan, show
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import Request, parse_request
from sweeps.tracking.progress import ProgressDisplay, print_multitask_summary, print_summary
from sweeps.tracking.reference_scores import measure_reference_scores, threshold
from sweeps.tracking.run_states import Observer
from sweeps.tracking.sweep_folder import FOLDER, SweepFolder, write_submission
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.numerics.numeric_path import choose_device
from tdmpc2.common.run.lock import InUseError, Lease
from tdmpc2.common.run.provenance import git_commit
from tdmpc2.common.run.resume_checks import check_commit
from tdmpc2.common.system import cli
from tdmpc2.envs.task_variants import task_of
from tdmpc2.envs.tasks import Task

# Exit codes.
ASKS_FIRST = 3
LEFT_BLOCKED = 4
ADVICE = (
    "Add yes=true to start it on this machine anyway, launch it where sbatch is, or choose fewer "
    "tasks=, seeds= or env_steps= (with data=: sizes=, seeds= or num_updates=)."
)
# How long a launch waits for another one to hand over its jobs.
PATIENCE_SECONDS = 120.0


def main(arguments: Sequence[str], advice: str = ADVICE) -> int:
    """The command; returns its exit code.

    Args:
        arguments: of the command line.
        advice: on a plan that takes this machine long.

    Returns:
        0 if all runs ended (above the threshold that the suite demands) or were submitted; 1
        if some failed; 3 if `yes=true` is asked for, since the plan takes long or some of its
        runs cannot start; 4 if all is well but for runs that cannot start.
    """
    request = parse_request(arguments)
    cluster = slurm.choose(request.sweep.cluster)
    if cluster == "slurm":
        return _on_slurm(request)
    return _on_this_machine(request, advice, inline=cluster == "inline")


def _on_slurm(request: Request) -> int:
    partition = slurm.choose_partition(request.sweep.partition)
    gpus = request.sweep.gpus
    if gpus is None:
        gpus = int(partition is not None and partition.has_gpus)
    plan = make_plan(request, Observer(request.runs), gpu=gpus > 0)
    show(plan, parallel=None)
    _check_commits(plan)
    layout = lay_out(plan, partition, gpus)
    print(layout.describe(), flush=True)
    if request.sweep.dry_run:
        list_runs(plan)
        return 0
    if not plan.todo:
        list_runs(plan)
        return _code_of(plan)
    folder = SweepFolder.of(request.runs, request.sweep.label, request.planned)
    with _turn(request.runs / FOLDER):
        # What another launch has handed over meanwhile is no longer ours to do.
        plan = make_plan(request, Observer(request.runs), gpu=gpus > 0)
        layout = lay_out(plan, partition, gpus)
        if not plan.todo:
            print("another launch has just handed over the same runs")
            return _code_of(plan)
        folder.write(request.arguments, request.sweep.suite, request.planned)
        hand_over(layout, folder)
    return _code_of(plan)


def _on_this_machine(request: Request, advice: str, *, inline: bool) -> int:
    sweep = request.sweep
    threads = request.how.threads or 1
    gpu = choose_device(request.how.device).type == "cuda"
    # A large model fills a GPU, and its batches do.
    at_once = 1 if gpu and sweep.multitask else max(usable_cores() // threads, 1)
    parallel = 1 if inline else sweep.max_parallel or at_once
    plan = make_plan(request, Observer(request.runs), gpu=gpu)
    show(plan, parallel=parallel)
    _check_commits(plan)
    if sweep.dry_run:
        list_runs(plan)
        return 0
    if plan.todo and not sweep.yes:
        if plan.hours_to_do > LONG_HOURS:
            print(f"Not started: more than {LONG_HOURS:.0f} hours of work. {advice}")
            return ASKS_FIRST
        if plan.blocked:
            print(f"Not started: {_counted(plan)} cannot. Add yes=true to start the others.")
            return ASKS_FIRST
    if len(plan.blocked) == len(plan.planned):
        return _code_of(plan)

    # A launcher that is asked to end stops its runs first, as ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if plan.todo:
        folder = SweepFolder.of(request.runs, sweep.label, request.planned)
        folder.write(request.arguments, sweep.suite, request.planned)
        write_submission(folder.new_submission(), "local", commit=git_commit())
    at_hand = [run for run in request.planned if not run.missing]
    alone = [task_of(run.spec) for run in at_hand if not run.spec.tasks]
    reference_scores = measure_reference_scores(alone, request.runs, assets=sweep.assets)
    with ProgressDisplay(at_hand) as display:
        if inline:
            how: Any = {"threads": threads, "on_change": display.update}
            local_pool.run_inline(plan.groups, request.options, **how)
        else:
            local_pool.run_all(
                plan.groups,
                request.options,
                max_parallel=parallel,
                threads=threads,
                on_change=display.update,
            )
    if sweep.multitask:
        code = print_multitask_summary(request.planned)
    else:
        code = print_summary(at_hand, [_threshold(run, reference_scores) for run in at_hand])
    if sweep.after == "figures":
        figures = [sys.executable, "-m", "analysis.make_figures", *figure_arguments(request.runs)]
        code = subprocess.run(figures).returncode or code
    return code or _code_of(plan)


def _code_of(plan: SweepPlan) -> int:
    """Exit code where nothing failed; says again which runs cannot start."""
    if not plan.blocked:
        return 0
    print(f"{_counted(plan)} were left out; when they can start, launch again:")
    print("\n".join(plan.describe_blocked()[1:]), flush=True)
    return LEFT_BLOCKED


def _counted(plan: SweepPlan) -> str:
    return f"{len(plan.blocked):,} of {len(plan.planned):,} runs"


def _check_commits(plan: SweepPlan) -> None:
    """Refuses to go on with a run by another commit, before anything has begun."""
    if not plan.request.how.allow_commit_change:
        commit = git_commit()
        for run in plan.todo:
            check_commit(run.directory, commit)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One launch at a time hands over jobs; others wait.

    Args:
        folder: of all sweeps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(Lease(folder))
                break
            except InUseError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield


def _threshold(run: PlannedRun, reference_scores: dict[Task, dict[str, Any]]) -> float | None:
    """Return above which a run has learned; None if it never was evaluated."""
    path = run.directory / "eval.csv"
    if not path.exists():
        return None
    evaluations = pd.read_csv(path)
    if not (evaluations.env_step == 0).any():
        return None
    return threshold(reference_scores[task_of(run.spec)], evaluations)


def usage() -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/launch.py suite=SUITE [key=value …]",
            "",
            "Runs a suite of tasks with several seeds, on SLURM or on this machine. The plan comes",
            "first: runs, hours, disk. Launching again resumes what is unfinished, and skips what",
            "is finished, queued or running. Besides the keys below, every option and setting of",
            "`python tdmpc2/train.py --help` may be given.",
            "",
            "With data= (of `python -m tdmpc2.data`) one agent learns all tasks of a suite from a",
            "dataset, and options and settings are those of `python tdmpc2/train.py data= --help`:",
            "  suite=mt30 data=DIR                        a run per seed, of all 30 tasks",
            "  suite=scaling data=mt30=DIR,mt80=DIR       a run per method, set, size and seed",
            "Without data=, suite=mt30 is 30 runs per method and seed, of a task each. A run here",
            "has one process and at most one GPU; for several, start it by torchrun (see there).",
            "",
            cli.describe_fields(SweepOptions),
            "",
            "Runs whose models or simulator are missing are listed with the command that gets",
            "them; the others start (on SLURM, or with yes=true).",
            "",
            "exit code: 0 all well; 1 a run failed, or did not learn where it must; 2 bad input;",
            "3 nothing was started: add yes=true; 4 all well, but some runs cannot start yet.",
            "",
            "sweeps/status.py shows where runs stand, sweeps/retry.py launches failed ones again,",
            "sweeps/cancel.py stops a sweep.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
