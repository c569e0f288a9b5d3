"""Runs on local processes: a bounded pool, cores shared out so that processes don't fight."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tdmpc2.common.records import read_status
from tdmpc2.common.spec import RunSpec

POLL_SECONDS = 0.5
# How long a stopped run may take to finish its current update before it is killed; it
# resumes from its last checkpoint either way.
GRACE_SECONDS = 30.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Job:
    """One run of the pool.

    Attributes:
        spec: what runs.
        directory: its run directory.
        status: last `status.json` read, or None.
        exit_code: of its process; None before it ended.
    """

    spec: RunSpec
    directory: Path
    status: dict[str, Any] | None = None
    exit_code: int | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """For people: method, task and seed."""
        return f"{self.spec.method} {self.spec.task} seed {self.spec.seed}"

    @property
    def log(self) -> Path:
        """Where the process writes what it has to say."""
        return self.directory / "log.txt"


def words_of(spec: RunSpec, options: dict[str, Any]) -> list[str]:
    """The `key=value` words that make the train command run exactly this."""
    words = {
        "method": spec.method,
        "task": spec.task,
        "seed": spec.seed,
        "env_steps": spec.budget,
        "variant": spec.variant,
        "obs": spec.obs,
        "assets": (spec.assets or "official").partition("-")[0],
        **dict(spec.overrides),
        **options,
    }
    return [f"{key}={value}" for key, value in words.items()]


def run_all(
    jobs: Sequence[Job],
    options: dict[str, Any],
    *,
    max_parallel: int,
    threads: int,
    on_change: Callable[[Sequence[Job]], None],
) -> None:
    """Runs all jobs, at most `max_parallel` at a time, in the given order.

    Ctrl-C stops all of them; each resumes from its last checkpoint when launched again.

    Args:
        jobs: their `status` and `exit_code` are kept up to date.
        options: passed on to every run (see `RunOptions`).
        max_parallel: processes at a time.
        threads: CPU threads of each.
        on_change: called at every poll.
    """
    waiting = list(jobs)
    running: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                job = waiting.pop(0)
                _start(job, options, threads)
                running.append(job)
            time.sleep(POLL_SECONDS)
            for job in list(running):
                assert job.process is not None
                job.exit_code = job.process.poll()
                job.status = read_status(job.directory) or job.status
                if job.exit_code is not None:
                    running.remove(job)
            on_change(jobs)
    finally:
        _stop(running)


def _start(job: Job, options: dict[str, Any], threads: int) -> None:
    job.directory.mkdir(parents=True, exist_ok=True)
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    words = words_of(job.spec, {**options, "threads": threads, "progress": "false"})
    log: IO[bytes]
    with open(job.log, "ab") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "tdmpc2.train", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # ctrl-C reaches them through `_stop` only
        )


def _stop(running: Sequence[Job]) -> None:
    """Asks processes to stop, then kills those that don't."""
    for job in running:
        assert job.process is not None
        job.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for job in running:
        assert job.process is not None
        try:
            job.process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()
