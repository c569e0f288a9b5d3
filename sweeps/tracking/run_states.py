"""Where runs stand: what their directories say, and what the cluster says."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sweeps.planning.planned_run import SPEEDS
from sweeps.tracking.sweep_folder import Submission, all_sweeps, job_name
from tdmpc2.common.run.lock import file_system_time, live_holder
from tdmpc2.common.run.run_files import SETTLED, read_status, step_of

# new: never begun. blocked: to be launched, but this machine lacks something that it needs.
# resumable: stopped, and goes on from its last checkpoint when launched again.
# stale: says that it runs, but its process is gone (killed, out of memory, a dead node).
RunState = Literal[
    "done", "diverged", "running", "queued", "failed", "stale", "resumable", "blocked", "new"
]
STATES: tuple[RunState, ...] = get_args(RunState)
ENDED: tuple[RunState, ...] = ("done", "diverged")  # there is nothing to do
ACTIVE: tuple[RunState, ...] = ("running", "queued")  # somebody does it
# States of SLURM in which a job has not begun.
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")
QUEUE_SECONDS = 60


@dataclass
class View:
    """A run as it stands.

    Attributes:
        state: see above.
        status: `status.json`, if there is one.
        job: of SLURM, the last one that was to carry it out.
        log: of that job, or of the process on this machine.
        message: what went wrong, if something did.
    """

    state: RunState
    status: dict[str, Any] = field(default_factory=dict)
    job: str | None = None
    log: Path = Path()
    message: str = ""

    @property
    def step(self) -> int:
        """Where it stands, in the unit of its budget."""
        return step_of(self.status) if self.status else 0

    @property
    def speed(self) -> float:
        """Steps of that unit a second; 0 if it does not run, or is just beginning."""
        known = (self.status.get(name) for name in SPEEDS.values())
        return float(next(filter(None, known), 0)) * (self.state == "running")


class Observer:
    """Looks at runs.

    Args:
        runs: folder of all runs, and of the sweeps whose jobs may carry them out.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        sweeps = all_sweeps(runs)
        self.jobs: dict[str, tuple[str, int, Submission]] = {}
        on_slurm = False
        for submission in sorted(
            (s for sweep in sweeps for s in sweep.submissions()), key=lambda s: s.facts["launched"]
        ):
            on_slurm |= submission.facts["cluster"] == "slurm"
            for job, rank, directories in submission.jobs():
                self.jobs.update(dict.fromkeys(directories, (job, rank, submission)))
        self.queue = read_queue([job_name(sweep.name) for sweep in sweeps]) if on_slurm else {}
        try:
            self.now = file_system_time(runs)
        except OSError:  # not there, or not ours to write to
            self.now = time.time()

    def look(self, directory: str, budget: int) -> View:
        """Where a run stands.

        Args:
            directory: of the run, below the folder of runs.
            budget: that it is to reach.
        """
        path = self.runs / directory
        status = read_status(path) or {}
        job, rank, submission = self.jobs.get(directory, (None, 0, None))
        log = path / "log.txt"  # of a process on this machine
        if submission is not None and job is not None:
            log = submission.log(job, rank)
        view = View("new", status, job, log, status.get("message", ""))
        state = status.get("state")
        # A job's end is told by its log; a process of this machine may share its with others.
        may_have_said = state is None or (job is not None and state == "RUNNING")
        if state == "DIVERGED":
            view.state = "diverged"
        elif state in SETTLED and step_of(status) >= budget:
            view.state = "done"
        elif live_holder(path, self.now) is not None:
            view.state = "running"
        elif job is not None and self.queue is None:  # this machine cannot ask the cluster
            view.state = "stale" if state == "RUNNING" else "queued"
        elif job is not None and self.queue and job in self.queue:
            view.state = "queued" if self.queue[job] in WAITING else "running"
        elif state == "FAILED":
            view.state = "failed"
        elif may_have_said and (said := last_error(log)):
            view.state, view.message = "failed", said
        elif state == "RUNNING":
            view.state, view.message = "stale", "its process is gone"
        elif state is not None:
            view.state = "resumable"
        return view


def read_queue(job_names: Iterable[str]) -> dict[str, str] | None:
    """Jobs that SLURM knows of as not ended, with their states; None where it does not answer."""
    wanted = ",".join(job_names)
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--name={wanted}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=QUEUE_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split("|", 1) for line in done.stdout.split())


def last_error(log: Path) -> str:
    """The last line of an error log that tells why its job ended; empty if none does."""
    try:
        with open(log, "rb") as file:
            file.seek(max(log.stat().st_size - 4096, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return ""
