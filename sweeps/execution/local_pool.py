"""Train runs in local processes, with a bounded number of processes and threads per process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from sweeps.execution.process_file import train_file
from sweeps.planning.planned_run import PlannedRun, SeedGroup
from sweeps.tracking.silence import silence
from tdmpc2.common.run.lock import live_holder
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.system.memory_errors import out_of_processes
from tdmpc2.common.system.regular_files import regular

POLL_SECONDS = 0.5
# How long a process may take to stop after SIGTERM before it is killed. Its runs resume from their
# last checkpoints either way.
GRACE_SECONDS = 30.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_all(
    groups: Sequence[SeedGroup],
    files: Sequence[Path],
    *,
    max_parallel: int,
    threads: int,
    on_change: Callable[[Sequence[PlannedRun]], None],
) -> None:
    """Run all groups in the given order, at most `max_parallel` processes at a time.

    Ctrl-C stops all processes; their runs resume from their last checkpoints when launched again.
    Groups with a run that another launch has started in the meantime are skipped, and so are those
    whose process cannot be started, e.g. because their log cannot be written.

    Args:
        groups: runs of each process; their `status` and `exit_code` are kept up to date.
        files: file of each process (see `process_file.write_file`).
        max_parallel: maximum number of processes at a time.
        threads: CPU threads per process.
        on_change: called with all runs after every poll.
    """
    waiting = list(zip(groups, files, strict=True))
    runs = [run for group in groups for run in group]
    running: list[tuple[SeedGroup, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                group, file = waiting.pop(0)
                if any(live_holder(run.directory) for run in group):
                    continue
                try:
                    running.append((group, _start(group, file, threads)))
                except OSError as error:  # the other runs do not depend on it
                    unstarted = out_of_processes(error)
                    for run in group:
                        run.obstacle = (
                            f"{error.filename or run.directory}: {error.strerror}"
                            if unstarted is None
                            else f"{unstarted} can be started (`ulimit -u`, or the container's)"
                        )
            time.sleep(POLL_SECONDS)
            for group, process in list(running):
                code = process.poll()
                for run in group:
                    _look(run, code)
                if code is not None:
                    running.remove((group, process))
            on_change(runs)
        for run in runs:
            if not run.started:  # trained by another launch, which may have ended it
                _look(run, None)
    finally:
        _stop([process for _, process in running])


def _look(run: PlannedRun, code: int | None) -> None:
    """Update what is known of a run whose process was started.

    Args:
        run: the run.
        code: exit code of the process; None while it runs.
    """
    holder = live_holder(run.directory)
    with contextlib.suppress(UserError):  # damaged: the process says so
        run.status = read_status(run.directory) or run.status
    run.silence = silence(run.directory, holder)
    run.exit_code = code
    if code and holder is not None:  # another launch, begun at the same moment, was faster
        run.started, run.exit_code = False, None


def run_inline(
    groups: Sequence[SeedGroup],
    files: Sequence[Path],
    *,
    on_change: Callable[[Sequence[PlannedRun]], None],
) -> None:
    """Run all groups in this process, one after another, for debugging.

    Args:
        groups: runs that are trained together.
        files: file of each group (see `process_file.write_file`).
        on_change: called with all runs after each group.

    Raises:
        StoppedError: a signal stopped a run.
    """
    runs = [run for group in groups for run in group]
    for group, file in zip(groups, files, strict=True):
        code = 0
        try:
            train_file(file)
        except StoppedError:
            raise
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            code = 1
        for run in group:
            run.started, run.exit_code = True, code
            run.status = read_status(run.directory)
        on_change(runs)


def _start(group: SeedGroup, file: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start the process of a group; its output goes to the log of the group's first run."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    group[0].directory.mkdir(parents=True, exist_ok=True)
    log: IO[bytes]
    with open(regular(group[0].log, None), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tdmpc2.train", f"spec={file}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that Ctrl-C reaches the process only through `_stop`
        )
    for run in group:
        run.started, run.log = True, group[0].log
    return process


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate processes, and kill those that do not stop within `GRACE_SECONDS`."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
