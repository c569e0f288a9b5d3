"""SLURM jobs of a sweep: train runs, and requeue the job before a time limit or preemption."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import submitit
from submitit.helpers import Checkpointable

from sweeps.execution import code_snapshot
from sweeps.execution.process_file import train_file
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.lock import EXPIRY_SECONDS, InUseError, live_holder
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.system.streams import make_lasting

# After SIGTERM, SLURM kills the job within this time. If it does not, the signal came from
# elsewhere and the process exits with the error.
KILL_SECONDS = 120.0
# How long a process waits for the other processes of its job to save before it requeues the job.
SAVE_SECONDS = 60.0
# How long a process asks SLURM to requeue its job, and how long each request may take. Nobody else
# requeues a job that reaches its time limit.
REQUEUE_SECONDS = 60.0
ANSWER_SECONDS = 20.0
# How long the question takes at most whether the job is being ended: a process that has waited for
# the end of its episode until 20 s after SIGTERM is killed 10 s later.
ASKING_SECONDS = 4.0
RETRY_SECONDS = 5.0


class TrainingJob(Checkpointable):
    """One job with one process per rank; each process trains a run, or several seeds as a batch.

    The job holds paths only. The state of a run is on disk, so the job can be started again at any
    time; submitit does so if a signal arrives before training has started.

    Args:
        files: file of each process (see `process_file.write_file`).
        code: copy of the code that the job runs.
    """

    def __init__(self, files: Sequence[Path], code: Path) -> None:
        self.files, self.code = files, code

    def __call__(self) -> list[str]:
        """Train the runs of this process and return their final states."""
        make_lasting()  # a message that a full disk refuses must not prevent the requeue
        rank = submitit.JobEnvironment().global_rank
        if rank >= len(self.files):  # the last job of an array may have unused processes
            return []
        try:
            code_snapshot.verify(self.code)
            return self._train(self.files[rank])
        except StoppedError as error:
            print(f"{error} (signal {error.signal})", file=sys.stderr, flush=True)
            if error.signal == signal.SIGUSR2:
                self._requeue(rank)
            # SIGTERM: SLURM preempts, requeues or cancels the job and will kill this process.
            time.sleep(KILL_SECONDS)
            raise
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            raise

    def _train(self, file: Path) -> list[str]:
        """Train, after waiting for the lease of a dead process to expire, if there is one."""
        deadline = time.monotonic() + EXPIRY_SECONDS + 30
        restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        while True:
            try:
                # Figures show the reference scores.
                ended = train_file(file, reference_scores=True, restarted=restarted)
                return [record.state for record in ended]
            except InUseError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _requeue(self, rank: int) -> NoReturn:
        """Requeue the job once all of its processes have saved.

        submitit's own requeue is not used: it limits the number of timeouts, counts every
        preemption of a short job as a timeout, and is done by rank 0 only, which may have ended.
        """
        try:
            self._wait_for_others(rank)
        except Exception as error:  # such as a file that cannot be read: requeue nevertheless
            what = f"{type(error).__name__}: {error}"
            print(f"not waiting for the other processes ({what})", file=sys.stderr, flush=True)
        job = submitit.JobEnvironment().job_id
        if not _is_being_ended(job):
            requeue(job)
        sys.exit(-1)

    def _wait_for_others(self, rank: int) -> None:
        """Wait until the other processes of the job have saved, at most `SAVE_SECONDS`."""
        deadline = time.monotonic() + SAVE_SECONDS
        jobs = [spec_file.read(file) for i, file in enumerate(self.files) if i != rank]
        others = [spec.run_dir(options.runs) for specs, options in jobs for spec in specs]
        while any(map(_is_held_by_this_job, others)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)


def _is_held_by_this_job(directory: Path) -> bool:
    """Return whether a process of this job trains a run; another job may have it after a retry."""
    holder = live_holder(directory)
    return holder is not None and holder.get("slurm_job") == os.environ.get("SLURM_JOB_ID")


def _is_being_ended(job: str) -> bool:
    """Return whether SLURM ends a job for another reason than its time limit.

    It has been cancelled after the warning, which SLURM would undo if the job requeued itself; or
    SLURM requeues it anyway. If SLURM does not answer, the job is not known to be ended.
    """
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%T %r"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=ASKING_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    state, _, reason = shown.stdout.strip().partition(" ")
    return state == "COMPLETING" and reason != "TimeLimit"


def requeue(job: str) -> None:
    """Ask SLURM to requeue a job, again and again for `REQUEUE_SECONDS` if it does not accept.

    Args:
        job: id of the job.
    """
    deadline = time.monotonic() + REQUEUE_SECONDS
    while True:
        try:
            done = subprocess.run(
                ["scontrol", "requeue", job],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_SECONDS,
            )
            if done.returncode == 0:
                return
            failure = done.stderr.strip() or f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        print(f"scontrol requeue {job}: {failure}", file=sys.stderr, flush=True)
        # "Job is pending execution": another process of the job was faster.
        if "pending" in failure.lower() or time.monotonic() > deadline:
            return
        time.sleep(RETRY_SECONDS)


@dataclass(frozen=True)
class FollowUp:
    """A job that runs a Python module when other jobs have ended, successfully or not.

    Attributes:
        command: name of the module and its arguments.
        comment: text by which the job is found in the queue.
        purpose: what it does, for messages.
    """

    command: tuple[str, ...]
    comment: str
    purpose: str

    @property
    def line(self) -> str:
        """The command as a line of a shell."""
        return shlex.join(("python", "-m", *self.command))


class ModuleJob(Checkpointable):
    """One job that runs a Python module, such as the figures after all runs have ended.

    Args:
        *arguments: module name and its command-line arguments.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __call__(self) -> None:
        """Run the module; exit with its exit code if it fails."""
        code = subprocess.run([sys.executable, "-m", *self.arguments]).returncode
        if code:
            sys.exit(code)
