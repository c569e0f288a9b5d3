"""Stops a sweep: `python sweeps/cancel.py suite=all104`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.status import find_sweeps
from sweeps.tracking.run_states import read_queue
from sweeps.tracking.sweep_folder import SweepFolder, job_name
from tdmpc2.common.run.lock import process_runs
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    schema = {"runs": Path, "suite": str, "sweep": str}
    given = cli.parse_arguments(arguments, schema)
    runs = given.get("runs", default_runs_dir())
    sweeps = find_sweeps(runs, given.get("suite"), given.get("sweep"))
    if len(sweeps) > 1 and not given.keys() & {"suite", "sweep"}:
        names = ", ".join(sweep.name for sweep in sweeps)
        raise UserError(f"several sweeps: say which with suite= or sweep= ({names})")
    for sweep in sweeps:
        _cancel(sweep)
    return 0


def _cancel(sweep: SweepFolder) -> None:
    """Ends its jobs, and the launches of this machine that carry it out."""
    done = 0
    queue = read_queue([job_name(sweep.name)])
    if queue:
        arrays = sorted({job.partition("_")[0] for job in queue})
        subprocess.run(["scancel", *arrays], check=True)
        print(f"{sweep.name}: {len(queue):,} jobs cancelled ({', '.join(arrays)})")
        done += 1
    for submission in sweep.submissions():
        facts = submission.facts
        if facts["cluster"] == "slurm":
            if queue is None:
                print(f"{sweep.name}: no SLURM answers here; cancel on the machine it has jobs on")
            continue
        if facts["host"] != socket.gethostname():
            continue
        if process_runs(facts["pid"], facts["pid_started"]):
            os.kill(facts["pid"], signal.SIGTERM)
            print(f"{sweep.name}: launch of process {facts['pid']} is stopping its runs")
            done += 1
    if not done:
        print(f"{sweep.name}: nothing is running or queued")


def usage() -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/cancel.py [runs=DIR] [suite=SUITE] [sweep=NAME]",
            "",
            "Stops a sweep: its SLURM jobs, or its launch on this machine. Nothing is deleted:",
            "runs go on from where they saved, when the sweep is launched again.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
