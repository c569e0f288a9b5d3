"""Runs on local processes: a bounded pool, cores shared out so that processes don't fight."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        options: how it is carried out, beside what goes for all.
        asked: whether it must learn; None where that is not even shown.
        status: last `status.json` read, or None.
        exit_code: of its process; None before it ended.
        log: where its process writes what it has to say.
    """

    spec: RunSpec
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: bool | None = False
    status: dict[str, Any] | None = None
    exit_code: int | None = None
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        """The process of a run alone writes into its directory."""
        self.log = self.directory / "log.txt"

    @property
    def name(self) -> str:
        """For people: method, task and seed."""
        return f"{self.spec.method} {self.spec.task} seed {self.spec.seed}"


def words_of(specs: Sequence[RunSpec], options: dict[str, Any]) -> list[str]:
    """The `key=value` words that make the train command run exactly this.

    Args:
        specs: of one process; they differ in nothing but their seed.
        options: see `RunOptions`.
    """
    spec = specs[0]
    seeds = ",".join(str(one.seed) for one in specs)
    words = {
        "method": spec.method,
        "task": spec.task,
        **({"seed": spec.seed} if len(specs) == 1 else {"seeds": seeds}),
        "env_steps": spec.budget,
        "variant": spec.variant,
        "obs": spec.obs,
        "assets": (spec.assets or "official").partition("-")[0],
        **dict(spec.overrides),
        **options,
    }
    return [f"{key}={value}" for key, value in words.items()]


def in_packs(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """Runs that differ in nothing but their seed, at most `size` to a process."""
    alike: dict[RunSpec, list[Job]] = {}
    for job in jobs:
        alike.setdefault(dataclasses.replace(job.spec, seed=0), []).append(job)
    return [group[i : i + size] for group in alike.values() for i in range(0, len(group), size)]


def run_all(
    packs: Sequence[Sequence[Job]],
    options: dict[str, Any],
    *,
    max_parallel: int,
    threads: int,
    on_change: Callable[[Sequence[Job]], None],
) -> None:
    """Runs all jobs, at most `max_parallel` processes at a time, in the given order.

    Ctrl-C stops all of them; each resumes from its last checkpoint when launched again.

    Args:
        packs: the jobs of each process, whose `status` and `exit_code` are kept up to date.
        options: passed on to every run (see `RunOptions`).
        max_parallel: processes at a time.
        threads: CPU threads of each.
        on_change: called at every poll.
    """
    waiting, jobs = list(packs), [job for pack in packs for job in pack]
    running: list[Sequence[Job]] = []
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                pack = waiting.pop(0)
                _start(pack, options, threads)
                running.append(pack)
            time.sleep(POLL_SECONDS)
            for pack in list(running):
                for job in pack:
                    assert job.process is not None
                    job.exit_code = job.process.poll()
                    job.status = read_status(job.directory) or job.status
                if pack[0].exit_code is not None:
                    running.remove(pack)
            on_change(jobs)
    finally:
        _stop([pack[0] for pack in running])


def _start(pack: Sequence[Job], options: dict[str, Any], threads: int) -> None:
    """Starts the process of a pack; what it says goes to the log of the first of its runs."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    specs = [job.spec for job in pack]
    every = {**options, **pack[0].options, "threads": threads, "progress": "false"}
    words = words_of(specs, every)
    pack[0].directory.mkdir(parents=True, exist_ok=True)
    log: IO[bytes]
    with open(pack[0].log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tdmpc2.train", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # ctrl-C reaches them through `_stop` only
        )
    for job in pack:
        job.process, job.log = process, pack[0].log


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
