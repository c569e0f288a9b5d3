"""What a SLURM job does: trains its runs, and comes back when the cluster takes the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable

from sweeps.execution.train_command import train
from tdmpc2.common.run.lock import EXPIRY_SECONDS, InUseError, live_holder
from tdmpc2.common.system.errors import StoppedError, UserError

# A job that the cluster is about to kill waits for that; who only sent a signal gets it back.
KILL_SECONDS = 120.0
# How long the processes of a job wait for each other before it is requeued.
SAVE_SECONDS = 60.0
RETRY_SECONDS = 5.0


class TrainingJob(Checkpointable):
    """One job: a process per rank, each training a run, or several seeds as one batch.

    It holds arguments only. The state of a run is on disk, so a job may start again at any time;
    that is what submitit does with it on a signal before training has begun.

    Args:
        arguments: of the train command, for each process.
        directories: run directories of each process.
    """

    def __init__(self, arguments: Sequence[Sequence[str]], directories: Sequence[Sequence[Path]]):
        self.arguments, self.directories = arguments, directories

    def __call__(self) -> list[str]:
        """Trains; the states that the runs of this process ended in."""
        rank = submitit.JobEnvironment().global_rank
        if rank >= len(self.arguments):  # the last job of an array may have places left
            return []
        try:
            return self._train(self.arguments[rank])
        except StoppedError as error:
            print(f"{error} (signal {error.signal})", file=sys.stderr, flush=True)
            if error.signal == signal.SIGUSR2:
                self._requeue(rank)
            # Preempted or requeued by SLURM itself, or cancelled: it kills what is left.
            time.sleep(KILL_SECONDS)
            raise
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            raise

    def _train(self, arguments: Sequence[str]) -> list[str]:
        """Waits for a lease that its holder, who may be dead, still has."""
        deadline = time.monotonic() + EXPIRY_SECONDS + 30
        while True:
            try:
                # The figures compare with what doing nothing scores.
                return [record.state for record in train(arguments, reference_scores=True)]
            except InUseError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _requeue(self, rank: int) -> None:
        """Hands the job back to the queue once all of its processes have saved; does not return.

        Not submitit's own requeue, which counts the time limits that a job has reached, takes
        any preemption of a short job for one, and leaves it to rank 0, which may have ended.
        """
        deadline = time.monotonic() + SAVE_SECONDS
        others = [d for place, group in enumerate(self.directories) if place != rank for d in group]
        while any(live_holder(directory) for directory in others):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        job = submitit.JobEnvironment().job_id
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if done.returncode:  # another rank was faster, or the cluster does not requeue
            print(f"scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        sys.exit(-1)


class ModuleJob(Checkpointable):
    """One job that runs a command of ours: the figures, once all runs have ended.

    Args:
        arguments: module, and the arguments of its command line.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __call__(self) -> None:
        """Runs it; fails if it does."""
        code = subprocess.run([sys.executable, "-m", *self.arguments]).returncode
        if code:
            sys.exit(code)
