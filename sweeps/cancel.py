"""Stop a sweep: `python sweeps/cancel.py suite=all104`."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.execution.slurm_cancel import (
    END_SECONDS,
    Cancelled,
    cancel_jobs,
    submissions_held_back,
    wait_until_ended,
)
from sweeps.status import find_sweeps
from sweeps.tracking.silence import SILENT_SECONDS
from sweeps.tracking.sweep_folder import Submission, SweepFolder
from tdmpc2.common.run.lock import file_system_time, live_holder
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir
from tdmpc2.common.system.processes import arguments_of, parent_of, runs


@dataclass(frozen=True)
class CancelOptions(Settings):
    """Options of `sweeps/cancel.py`."""

    runs: Path = setting(default_runs_dir, "folder that holds all runs")
    suite: str | None = setting(None, "all sweeps of this suite (tasks: launched with tasks=)")
    sweep: str | None = setting(None, "this sweep: the name of its folder in <runs>/sweeps")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Returns:
        0 if all that belongs to the sweeps is known and stops, else 1.

    Raises:
        UserError: an argument is invalid, no sweep matches, or several do and none is chosen; or
            another launch has been submitting jobs for long.
    """
    options = cli.parse_options(arguments, CancelOptions)
    _choose(options)  # an error is not waited for
    with submissions_held_back(options.runs) as locked:
        sweeps = _choose(options)  # again: a launch may have written one in the meantime
        outcomes = [cancel_jobs(sweep, locked=locked) for sweep in sweeps]
    at_work = {directory for outcome in outcomes for directory in outcome.at_work}
    complete = True
    for sweep, outcome in zip(sweeps, outcomes, strict=True):
        outcome.complete &= locked
        complete &= _stop_rest(sweep, outcome, at_work)
    ids = {job for outcome in outcomes for job in outcome.ids}
    if ids and not wait_until_ended([sweep.name for sweep in sweeps], ids):
        complete = False
    return int(not complete)


def _choose(options: CancelOptions) -> list[SweepFolder]:
    """Find the sweeps to stop; raise an error if several match and none is chosen."""
    sweeps = find_sweeps(options.runs, options.suite, options.sweep)
    if len(sweeps) > 1 and options.suite is None and options.sweep is None:
        names = ", ".join(sweep.name for sweep in sweeps)
        raise UserError(f"several sweeps found: choose with suite= or sweep= ({names})")
    return sweeps


def _stop_rest(sweep: SweepFolder, outcome: Cancelled, at_work: Collection[str]) -> bool:
    """Stop the processes of a sweep whose jobs were cancelled.

    Args:
        sweep: the sweep.
        outcome: what is known of its jobs.
        at_work: directories of runs whose SLURM jobs are, or may be, in the queue.

    Returns:
        Whether all that belongs to the sweep is known and stops.
    """
    damages = sweep.damages()
    for damage in damages:
        print(f"damaged: {damage}")
    stopped = _stop_processes(sweep, at_work)
    complete = outcome.complete and all(stopped) and not damages
    if complete and not stopped and not outcome.found:
        print(f"{sweep.name}: nothing is running or queued")
    return complete


def _stop_processes(sweep: SweepFolder, at_work: Collection[str]) -> list[bool]:
    """Stop the launchers of a sweep on this machine, and the processes of those that were killed.

    Args:
        sweep: the sweep.
        at_work: directories of runs whose SLURM jobs are, or may be, in the queue.

    Returns:
        Whether it stops, for each process that works on the sweep, or may do so.
    """
    launches = sweep.submissions()
    local = [launch.facts for launch in launches if _has_no_end(launch)]
    launchers = {facts["pid"] for facts in local if runs(facts)}
    # Before the launchers: when one has ended, its runs are no longer its children.
    stopped = _stop_orphans(sweep, launchers, at_work)
    for pid in sorted(launchers):
        stopped.append(_stop(sweep, f"launcher process {pid}", pid, "is stopping its runs"))
    # Of launches before one that can be seen from here, only leases tell anything.
    for launch in itertools.takewhile(_is_unseen, reversed(launches)):
        if _has_written_lately(sweep, launch):
            pid, host = launch.facts.get("pid"), launch.facts.get("host")
            print(
                f"{sweep.name}: launcher process {pid} on host {host} may still run, which cannot "
                "be seen from here; cancel the sweep there, too"
            )
            stopped.append(False)
    return stopped


def _has_no_end(launch: Submission) -> bool:
    """Return whether a launch was without SLURM and has not recorded its end."""
    return launch.facts["cluster"] != "slurm" and "ended" not in launch.facts


def _is_unseen(launch: Submission) -> bool:
    """Return whether a launch may be at work on a machine that cannot be seen from here."""
    return _has_no_end(launch) and runs(launch.facts) is None


def _has_written_lately(sweep: SweepFolder, launch: Submission) -> bool:
    """Return whether a launcher or its processes have written a file within `SILENT_SECONDS`.

    A launcher at work has, unless one of its processes holds a lease: it measures reference scores,
    or starts a process after the launch or the end of another one.
    """
    files = [launch.folder / "submission.json", sweep.runs / "floors"]
    for directory, _ in launch.local_logs():
        files += [sweep.runs / directory / name for name in ("log.txt", "status.json")]
    times = [0.0]
    for file in files:
        with contextlib.suppress(OSError):  # there is none yet
            times.append(file.stat().st_mtime)
    return file_system_time(sweep.runs) - max(times) < SILENT_SECONDS


def _stop_orphans(
    sweep: SweepFolder, launchers: Collection[int], at_work: Collection[str]
) -> list[bool]:
    """Stop the processes of launchers that were killed; name others that train runs of the sweep.

    Args:
        sweep: the sweep.
        launchers: launchers of the sweep that stop their runs themselves.
        at_work: directories of runs whose SLURM jobs are, or may be, in the queue.

    Returns:
        Whether it stops, for each process that trains runs.
    """
    holders: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in sweep.rows():
        holder = live_holder(sweep.runs / row["directory"])
        # Else the lease is that of the job, which was cancelled or belongs to another user.
        if holder is not None and (
            holder.get("slurm_job") is None or row["directory"] not in at_work
        ):
            holders[holder.get("host"), holder.get("pid")] = holder
    stopped = []
    for (host, pid), holder in holders.items():
        here = runs(holder)
        if here and {pid, parent_of(pid)} & {*launchers}:
            continue
        if here and _is_of(pid, sweep):
            how = "is stopping; its launcher has ended"
            stopped.append(_stop(sweep, f"process {pid}", pid, how))
            continue
        job = holder.get("slurm_job")
        place = f"on host {host}" if job is None else f"on host {host} in SLURM job {job}"
        print(
            f"{sweep.name}: process {pid} {place} {'goes on' if here else 'may go on'}; stop it "
            "there, since no launch of this sweep on this machine has started it"
        )
        stopped.append(False)
    return stopped


def _stop(sweep: SweepFolder, what: str, pid: int, how: str) -> bool:
    """Ask a process to stop; return whether it does so or has ended.

    Args:
        sweep: the sweep, for messages.
        what: the process in messages.
        pid: its id.
        how: what it does then, for messages.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # ended in the meantime
        return True
    except PermissionError:
        print(f"{sweep.name}: {what} belongs to another user, who can stop it")
        return False
    print(f"{sweep.name}: {what} {how}")
    return True


def _is_of(pid: int, sweep: SweepFolder) -> bool:
    """Return whether a launch of the sweep has started a process, whose argument is its file."""
    files = [word[5:] for word in arguments_of(pid) if word.startswith("spec=")]
    with contextlib.suppress(OSError):  # a file name that is too long
        return any(Path(file).resolve().is_relative_to(sweep.path.resolve()) for file in files)
    return False


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/cancel.py [runs=DIR] [suite=SUITE] [sweep=NAME]",
            "",
            "Stops a sweep: cancels those of your SLURM jobs that its launches have recorded, and",
            "stops its launcher on this machine, or the processes of a launcher that was killed.",
            f"Waits up to {END_SECONDS:.0f} s for cancelled jobs to save and end, so that they can",
            "be launched again.",
            "",
            cli.describe_fields(CancelOptions),
            "",
            "suite= or sweep= is required if there are several sweeps. Nothing is deleted: launch",
            "the sweep again to resume its runs from their last checkpoints.",
            "",
            "Exit code: 0 if everything stops; 1 if something goes on or has not ended yet, or if",
            "it cannot be known, which is said.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
