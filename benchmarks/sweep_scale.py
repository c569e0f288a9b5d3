"""Measure planning, submitting and monitoring of a complete reproduction.

`python benchmarks/sweep_scale.py` plans `suite=all104 seeds=3` (1,248 runs), submits it to SLURM as
held jobs if SLURM is available, cancels the jobs, and shows the status of as many run directories.
Each command runs in its own process, so that imports are included. `out` is written after each
repetition. If jobs may be left in the queue, their folder is kept, and the command that cancels
them is printed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from checks import check_file

from sweeps.execution.exit_codes import LEFT_OUT
from sweeps.planning.request import SweepRequest
from sweeps.tracking.run_states import is_queued, read_queue
from sweeps.tracking.sweep_folder import SweepFolder, all_sweeps, job_name, write_submission
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, Settings, setting

SCRIPTS = Path(__file__).parents[1] / "sweeps"


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    suite: str = setting("all104", "suite of tasks")
    seeds: str = setting("3", "a count or a list")
    assets: str = setting(
        "official,unknown,rebuilt,standin",
        "accepted sources of the models, for tasks that need some",
    )
    repetitions: int = setting(3, "timed calls of each command", REPETITIONS)
    out: Path | None = setting(None, "also write everything as JSON")


def timed(script: str, *arguments: str, expected: Collection[int] = (0,)) -> tuple[float, str]:
    """Return the seconds that a command takes, and its output.

    Args:
        script: file of the command.
        *arguments: its arguments.
        expected: its valid exit codes.

    Raises:
        SystemExit: the command failed.
    """
    start = time.perf_counter()
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in expected:
        problem = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        raise SystemExit(f"{script} {' '.join(arguments)}: {problem}")
    return seconds, done.stdout


def submit_and_cancel(sweep: Sequence[str]) -> dict[str, float]:
    """Submit runs as held jobs, show their status, and cancel them, also after an error.

    Returns:
        Seconds of submitting and of the status.

    Raises:
        SystemExit: a command failed, nothing was submitted, or jobs may be left in the queue.
    """
    runs = Path(tempfile.mkdtemp(prefix="sweep-scale-"))
    held = ["cluster=slurm", "sbatch=hold", "gpus=0", "mem_gb=1"]
    try:
        # LEFT_OUT: some runs are blocked, as their simulator or models are missing here.
        codes = (0, LEFT_OUT)
        submitted, printed = timed("launch.py", *sweep, f"runs={runs}", *held, expected=codes)
        jobs = [line for line in printed.splitlines() if line.startswith("submitted array ")]
        if not jobs:
            raise SystemExit(f"launch.py has submitted nothing:\n{printed}")
        print("\n".join(jobs), flush=True)
        status, _ = timed("status.py", f"runs={runs}")
    finally:
        cancelled = cancel(runs)
    if not cancelled:
        raise SystemExit(1)
    return {"submit": submitted, "status of queued jobs": status}


def cancel(runs: Path) -> bool:
    """Cancel the jobs of the sweeps in a folder, and remove it; return whether none is left.

    If some may be left, the folder is kept, and the command that cancels them is printed.
    """
    left = True
    try:
        if all_sweeps(runs):
            timed("cancel.py", f"runs={runs}")
        left = jobs_left(runs)
    except SystemExit as error:
        print(error, file=sys.stderr)
    finally:
        if left:
            again = f"python {SCRIPTS / 'cancel.py'} runs={runs}"
            print(f"Jobs may be left in the queue. Cancel them with `{again}`.", file=sys.stderr)
        else:
            shutil.rmtree(runs)
    return not left


def jobs_left(runs: Path) -> bool:
    """Return whether jobs of the sweeps in a folder are in the queue, or this is not known."""
    for sweep in all_sweeps(runs):
        name = job_name(sweep.name)  # sweeps of the same runs in other folders have it, too
        queue = read_queue([name])
        if queue is None:
            return True
        waiting = {job.partition("_")[0] for job in queue}
        for submission in sweep.submissions():
            if not waiting.isdisjoint(submission.job_ids()):
                return True
            # Jobs that SLURM may have accepted after the launch was stopped.
            if any(is_queued(name, record["comment"]) for record in submission.lost()):
                return True
    return False


def make_directories(arguments: Sequence[str], runs: Path) -> int:
    """Make a run directory for each run, half of them completed; return their number."""
    request = SweepRequest.from_arguments([*arguments, f"runs={runs}"])
    for place, run in enumerate(request.planned):
        run.directory.mkdir(parents=True)
        done = place % 2 == 0
        facts = {"state": "COMPLETED" if done else "INTERRUPTED", "message": ""}
        step = run.spec.budget if done else 1_000
        write_json(run.directory / "status.json", {**facts, "env_step": step})
    sweep = SweepFolder.of(runs, "all104", request.planned)
    sweep.write(request.to_json(), request.sweep.suite, request.planned, cluster="local")
    write_submission(sweep.new_submission(), "local")
    return len(request.planned)


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the options, and the arguments of the launch.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    sweep = [f"suite={options.suite}", f"seeds={options.seeds}", f"assets={options.assets}"]
    SweepRequest.from_arguments(sweep)
    check_file("out", options.out)
    return options, sweep


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
        SystemExit: a command failed, or jobs may be left in the queue.
    """
    options, sweep = parse(arguments)
    from sweeps.execution import slurm_queries

    seconds: dict[str, list[float]] = {}
    folder = Path(tempfile.mkdtemp(prefix="sweep-scale-"))
    half, unstarted = folder / "half-finished", ("cluster=local", "dry_run=true")
    try:
        num = make_directories(sweep, half)
        for _ in range(options.repetitions):
            plan = timed("launch.py", *sweep, f"runs={folder / 'new'}", *unstarted)
            status = timed("status.py", f"runs={half}", expected=(0, 1))  # 1: unfinished runs
            again = timed("launch.py", *sweep, f"runs={half}", *unstarted)
            taken = {"plan": plan[0], "status": status[0], "plan of half-finished runs": again[0]}
            if slurm_queries.choose("auto") == "slurm":
                taken |= submit_and_cancel(sweep)
            for name, value in taken.items():
                seconds.setdefault(name, []).append(value)
            if options.out is not None:
                write_json(options.out, {"runs": num, "seconds": seconds})
    finally:
        shutil.rmtree(folder)
    print(f"| {num:,} runs | fastest, s | slowest, s |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {min(each):.2f} | {max(each):.2f} |")
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return (
        f"usage: python benchmarks/sweep_scale.py [key=value …]\n\n{cli.describe_fields(Options)}"
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
