"""Determine the states of runs from their directories, their leases and the SLURM queue."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sweeps.planning.planned_run import SPEEDS
from sweeps.tracking.assignments import Assignments
from sweeps.tracking.job_logs import error_after_status, last_line
from sweeps.tracking.silence import silence, silence_in_job
from sweeps.tracking.slurm_listing import answer_of, unlisted
from sweeps.tracking.sweep_folder import (
    Submission,
    SubmissionFile,
    SweepFolder,
    all_sweeps,
    job_name,
)
from tdmpc2.common.run.lock import Lease, file_system_time, live_holder
from tdmpc2.common.run.resume_checks import is_past, why_ended
from tdmpc2.common.run.run_files import SETTLED, read_status, step_of
from tdmpc2.common.run.schemas import Attempt
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import can_list

# done: reached its budget. diverged: stopped at a NaN or Inf, a final result.
# running: a process holds its lease, or its SLURM job runs. queued: its SLURM job waits.
# failed: ended with an error.
# stale: recorded as running, but its process is gone (killed, out of memory, node failure); or its
# SLURM job began and ended, but recorded nothing of it.
# resumable: stopped before its budget; resumes from its last checkpoint when launched again.
# damaged: one of its files is damaged or cannot be read, so it is neither read nor launched.
# blocked: cannot start, because this machine lacks something that it needs; or has completed a
# smaller budget and cannot continue to a larger one.
# new: never started.
RunState = Literal[
    "done",
    "diverged",
    "running",
    "queued",
    "failed",
    "stale",
    "resumable",
    "damaged",
    "blocked",
    "new",
]
STATES: tuple[RunState, ...] = get_args(RunState)
ENDED: tuple[RunState, ...] = ("done", "diverged")  # nothing left to do
STARTED: tuple[RunState, ...] = ("failed", "stale", "resumable")  # before the budget
ACTIVE: tuple[RunState, ...] = ("running", "queued")  # a process or job works on it
# SLURM job states that count as queued (REQUEUE_HOLD: requeued and held).
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")
NO_ANSWER = (
    "squeue or scontrol does not respond, so it is unknown which jobs are in the queue; try again"
)


@dataclass
class View:
    """Current state of a run.

    Attributes:
        state: one of `STATES`.
        status: content of `status.json`; empty if there is none.
        job: id of the SLURM job to which it was last assigned; None without one.
        log: log file of that job, or of its process on this machine.
        message: error message, if it failed or is damaged; how its process or job ended, if stale;
            why it cannot continue, if blocked.
        silence: what to do about it, if its process or running job has recorded no progress for
            long.
        file: file of the process of its SLURM job, if the job waits or runs.
        listed: whether `squeue` lists that job.
        ending: whether it has not ended, but its SLURM job is ending. SLURM does not say whether
            the job then comes back to the queue, as after `scontrol requeue`.
    """

    state: RunState
    status: dict[str, Any] = field(default_factory=dict)
    job: str | None = None
    log: Path = Path()
    message: str = ""
    silence: str = ""
    file: Path | None = None
    listed: bool = False
    ending: bool = False

    @property
    def step(self) -> int:
        """Progress in the unit of the budget: env steps or updates done."""
        return step_of(self.status) if self.status else 0

    @property
    def needs_replay(self) -> bool:
        """Whether it has completed a smaller budget and continues only with `keep_replay=true`."""
        completed = self.status.get("state") == "COMPLETED" and "env_step" in self.status
        return self.state == "resumable" and completed

    @property
    def speed(self) -> float:
        """Env steps or updates per second; 0 unless it runs and has reported a speed."""
        speeds = (self.status.get(name) for name in SPEEDS.values())
        return float(next(filter(None, speeds), 0)) * (self.state == "running")


class Observer:
    """Determines the states of runs, with one query of the SLURM queue.

    Args:
        runs: folder of all runs and of their sweeps.

    Attributes:
        unread: sweeps of which a launch cannot be read, so that its jobs are unknown, each with the
            error.
        knows_jobs: whether it is known which jobs of all launches are in the queue.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        sweeps = all_sweeps(runs)
        submissions: list[Submission] = []
        self.unread: list[tuple[SweepFolder, UserError]] = []
        for sweep in sweeps:
            if not can_list(sweep.path):
                advice = "ask its owner to let you, or launch again when its jobs have ended"
                damage = UserError(f"{sweep.path}: cannot be read; {advice}")
                self.unread.append((sweep, damage))
            for record in sweep.records():
                if isinstance(record, UserError):
                    self.unread.append((sweep, record))
                else:
                    submissions.append(record)
        none_lost = find_lost_arrays(submissions)
        on_slurm = [s for s in submissions if s.facts["cluster"] == "slurm"]
        queue: dict[str, str] | None = {}
        elsewhere = unlisted(on_slurm)
        if elsewhere is None:
            queue = None
        elif on_slurm:
            queue = read_queue([job_name(sweep.name) for sweep in sweeps])
        self.knows_jobs = none_lost and queue is not None
        self._assigned = Assignments(runs, submissions, queue, elsewhere or set())
        self._first, self._begun = file_system_time(runs), time.monotonic()

    @property
    def now(self) -> float:
        """Time by the clock of the file system; reading thousands of runs may take minutes."""
        return self._first + time.monotonic() - self._begun

    def look(self, directory: str, budget: int) -> View:
        """Determine the state of a run.

        Args:
            directory: run directory, relative to the folder of all runs.
            budget: budget of the run in its unit.
        """
        view = self._look(directory, budget)
        if view.state in STARTED:
            # Its process may have ended between the reads of its status and of its lease.
            with contextlib.suppress(UserError):
                if (read_status(self.runs / directory) or {}) != view.status:
                    view = self._look(directory, budget)
        return view

    def _look(self, directory: str, budget: int) -> View:
        path = self.runs / directory
        job: str | None = None
        queue: Mapping[str, str] | None = {}
        # Written by processes on this machine.
        log = self.runs / self._assigned.logs.get(directory, directory) / "log.txt"
        if (assignment := self._assigned.last(directory)) is not None:
            job, rank, submission = assignment
            log, queue = submission.log(job, rank), self._assigned.queue_of(assignment)
        try:
            status = read_status(path) or {}
        except UserError as damage:
            return View("damaged", {}, job, log, str(damage))
        view = View("new", status, job, log, status.get("message", ""))
        state = status.get("state")
        if state == "COMPLETED" and _is_empty(path / "eval.csv"):
            message = f"{path / 'eval.csv'}: empty; restore it, or move the run directory away"
            return View("damaged", {}, job, log, message)
        if state == "DIVERGED":
            view.state = "diverged"
        elif state in SETTLED and step_of(status) >= budget:
            view.state = "done"
        elif (holder := live_holder(path, self.now)) is not None:
            view.state, view.silence = "running", silence(path, holder)
            in_job = job is not None and holder.get("slurm_job") is not None
            view.ending = in_job and (queue or {}).get(job or "") == "COMPLETING"
        elif job is not None and queue and job in queue:
            self._look_at_job(view, path, queue[job])
        elif state is not None and is_past(status, budget):
            view.state = "done"
        elif error := error_after_status(path, state, job, log):
            view.state, view.message = "failed", error
        elif state == "FAILED" and (queue is not None or _has_begun(path, job)):
            view.state = "failed"
        elif job is not None and queue is None:  # squeue does not list its jobs here
            view.state = "stale" if state == "RUNNING" else "queued"
        elif state == "RUNNING":
            view.state, view.message = "stale", "its process ended without recording a result"
        elif state is not None:
            view.state = "resumable"
        elif job is not None and os.path.exists(log):  # a job that never started has no log
            view.state, view.message = "stale", "its job ended without recording the run"
            if line := last_line(log):
                view.message += f": {line}"
        if view.state in STARTED:
            self._check_end(view, path, budget)
        view.listed = job is not None and job in (queue or {})
        if job is not None and (view.state == "queued" or view.listed):
            view.file = self._assigned.files[directory, job]
        return view

    def _look_at_job(self, view: View, path: Path, slurm_state: str) -> None:
        """Set the state of a run that no process holds, but whose job is in the queue.

        Args:
            view: view of the run.
            path: the run directory.
            slurm_state: state of the job in SLURM.
        """
        assert view.job is not None
        if slurm_state in WAITING:
            view.state = "queued"
        elif view.status.get("state") == "FAILED" and _has_begun(path, view.job):
            view.state = "failed"  # while other runs of the job go on
        else:
            view.state, view.ending = "running", slurm_state == "COMPLETING"
            if slurm_state == "RUNNING":
                view.silence = silence_in_job(path, view.job, view.log, self.now)

    def _check_end(self, view: View, path: Path, budget: int) -> None:
        """Change the view of a run that has finished and cannot continue to a larger budget."""
        completed = view.status.get("state") == "COMPLETED"  # with a smaller budget
        try:
            reason = why_ended(path, view.status, budget)
        except UserError as damage:
            view.state, view.message = "damaged", str(damage)
        else:
            if reason:
                view.state, view.message = "blocked", reason
            elif completed and view.state != "failed":
                view.message = ""


def _has_begun(directory: Path, job: str | None) -> bool:
    """Return whether a run has an attempt in its SLURM job; True without a job.

    Args:
        directory: the run directory.
        job: id of the job to which it was last assigned; None without one.
    """
    with contextlib.suppress(UserError):  # a damaged file
        attempts = read_json(directory / "attempts.json", list[Attempt]) or []
        return job is None or any(attempt.get("slurm_job") == job for attempt in attempts)
    return job is None


def _is_empty(path: Path) -> bool:
    """Return whether a file exists and is empty, as after a full disk."""
    with contextlib.suppress(OSError):
        return path.stat().st_size == 0
    return False


def find_lost_arrays(submissions: Iterable[Submission], *, locked: bool = False) -> bool:
    """Find the ids of job arrays, and of jobs after them, that a launch has not recorded.

    A launch that is killed, or to which `sbatch` does not respond in time, leaves a record without
    a job id. If SLURM has the jobs, their comment names the record.

    Args:
        submissions: launches whose records are completed: in memory, and on disk unless the lease
            of submissions and cancellations is held without `locked`.
        locked: whether this process holds the lease of these.

    Returns:
        Whether that is now known of each job: no id is missing, or `squeue` has responded.
    """
    lost = [s for s in submissions if s.lost()]
    pairs = _comments_in_queue({job_name(s.folder.parent.name) for s in lost}) if lost else []
    if pairs is None:
        return False
    comments = dict(pairs)
    for submission in lost:
        if not submission.complete(comments):
            continue
        # A launch at work writes its own record; the folder may be a colleague's.
        with contextlib.suppress(UserError, OSError), contextlib.ExitStack() as stack:
            if not locked:
                stack.enter_context(Lease(submission.folder.parents[1]))
            _complete_record(submission.folder / "submission.json", comments)
    return True


def _complete_record(path: Path, comments: Mapping[str, str]) -> None:
    """Complete a record of a launch, which may have been written since it was read.

    Args:
        path: its file.
        comments: comment → id of the job array.
    """
    facts = read_json(path, SubmissionFile)
    if facts is not None and Submission(path.parent, facts).complete(comments):
        write_json(path, facts)


def may_have_jobs(sweep: SweepFolder) -> bool:
    """Return whether jobs of a sweep with an unread launch are, or may be, in the queue.

    The cluster of a launch with a damaged record is unknown. A folder that this user may not list
    is that of another user, whose jobs `squeue` lists unless `PrivateData` hides them.

    Args:
        sweep: a sweep of `Observer.unread`.
    """
    if can_list(sweep.path):
        return True
    hidden = unlisted([Submission(sweep.path, {})])
    return hidden is None or bool(hidden) or read_queue([job_name(sweep.name)]) != {}


def is_queued(name: str, comment: str) -> bool:
    """Return whether a job with a name and a comment waits or runs, other than the present one.

    Args:
        name: job name.
        comment: its comment.

    Raises:
        UserError: `squeue` does not respond.
    """
    comments = _comments_in_queue([name])
    if comments is None:
        raise UserError(NO_ANSWER)
    own = os.environ.get("SLURM_JOB_ID")
    return any(found == comment and job != own for found, job in comments)


def _comments_in_queue(job_names: Iterable[str]) -> list[tuple[str, str]] | None:
    """Return the comment and id of each queued job array of some names.

    Jobs that continue the same study have the same comment.

    Returns:
        None if squeue is missing or does not respond.
    """
    names = f"--name={','.join(job_names)}"
    answer = answer_of(["squeue", "--noheader", "--format=%F|%k", names])
    if answer is None:
        return None
    pairs = (line.strip().split("|", 1) for line in answer.splitlines())
    return [(comment, job) for job, comment in pairs]


def read_queue(job_names: Iterable[str], user: int | None = None) -> dict[str, str] | None:
    """Return the SLURM jobs of some names that have not ended, with their states.

    Args:
        job_names: names of jobs.
        user: id of the user whose jobs are listed; None for all users.

    Returns:
        Job id → state; None if squeue is missing or does not respond.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--name={','.join(job_names)}"]
    answer = answer_of([*command, *([] if user is None else [f"--user={user}"])])
    return None if answer is None else dict(line.split("|", 1) for line in answer.split())
