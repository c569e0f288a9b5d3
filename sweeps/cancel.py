"""Stop a sweep: `python sweeps/cancel.py suite=all104`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.status import find_sweeps
from sweeps.tracking.run_states import find_lost_arrays, read_queue
from sweeps.tracking.sweep_folder import SweepFolder, job_name
from tdmpc2.common.run.lock import live_holder
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

    Raises:
        UserError: an argument is invalid, no sweep matches, or several do and none is chosen.
    """
    options = cli.parse_options(arguments, CancelOptions)
    sweeps = find_sweeps(options.runs, options.suite, options.sweep)
    if len(sweeps) > 1 and options.suite is None and options.sweep is None:
        names = ", ".join(sweep.name for sweep in sweeps)
        raise UserError(f"several sweeps found: choose with suite= or sweep= ({names})")
    for sweep in sweeps:
        _cancel(sweep)
    return 0


def _cancel(sweep: SweepFolder) -> None:
    """Cancel the user's SLURM jobs of a sweep, by id, and stop its launchers on this machine."""
    num_stopped = 0
    on_slurm = [s for s in sweep.submissions() if s.facts["cluster"] == "slurm"]
    find_lost_arrays(on_slurm)
    submitted = {job for submission in on_slurm for job in submission.job_ids()}
    if submitted:
        names = [job_name(sweep.name)]
        everyone, own = read_queue(names), read_queue(names, user=os.getuid())
        if everyone is None or own is None:
            print(
                f"{sweep.name}: squeue does not respond on this machine; cancel its SLURM jobs "
                "from a machine of their cluster"
            )
            everyone = own = {}
        jobs, others = (
            [job for job in queue if job.partition("_")[0] in submitted]
            for queue in (own, everyone.keys() - own.keys())
        )
        if jobs:
            ids = sorted({job.partition("_")[0] for job in jobs}, key=int)
            subprocess.run(["scancel", *ids], check=True)
            print(f"{sweep.name}: {len(jobs):,} jobs cancelled ({', '.join(ids)})")
        if others:
            print(
                f"{sweep.name}: {len(others):,} jobs of other users are left; they can cancel them"
            )
        num_stopped += len(jobs) + len(others)
    local = [one.facts for one in sweep.submissions() if one.facts["cluster"] != "slurm"]
    launchers = {facts["pid"] for facts in local if runs(facts)}
    # Before the launchers: when one has ended, its runs are no longer its children.
    num_stopped += len(launchers) + _stop_orphans(sweep, launchers)
    for pid in sorted(launchers):
        with contextlib.suppress(ProcessLookupError):  # ended in the meantime
            os.kill(pid, signal.SIGTERM)
        print(f"{sweep.name}: launcher process {pid} is stopping its runs")
    if not num_stopped:
        print(f"{sweep.name}: nothing is running or queued")


def _stop_orphans(sweep: SweepFolder, launchers: Collection[int]) -> int:
    """Stop the processes of launchers that were killed; name others that train runs of the sweep.

    Args:
        sweep: the sweep.
        launchers: launchers of the sweep that stop their runs themselves.

    Returns:
        The number of processes that still train runs.
    """
    holders: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in sweep.rows():
        holder = live_holder(sweep.runs / row["directory"])
        if holder is not None and holder.get("slurm_job") is None:
            holders[holder.get("host"), holder.get("pid")] = holder
    num_found = 0
    for (host, pid), holder in holders.items():
        if runs(holder):
            if {pid, parent_of(pid)} & {*launchers}:
                continue
            if _is_of(pid, sweep):
                with contextlib.suppress(OSError):  # ended in the meantime, or of another user
                    os.kill(pid, signal.SIGTERM)
                    print(f"{sweep.name}: process {pid} is stopping; its launcher has ended")
                    num_found += 1
                    continue
        num_found += 1
        print(
            f"{sweep.name}: process {pid} on host {host} goes on; stop it there, since no launch "
            "of this sweep on this machine has started it"
        )
    return num_found


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
            "",
            cli.describe_fields(CancelOptions),
            "",
            "suite= or sweep= is required if there are several sweeps. Nothing is deleted: launch",
            "the sweep again to resume its runs from their last checkpoints.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
