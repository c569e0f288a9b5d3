"""What the logs of jobs, and of processes on this machine, say about their end."""

from __future__ import annotations

import re
from pathlib import Path

from tdmpc2.common.system.regular_files import regular

# What a job prints when a signal has stopped its run (see `TrainingJob`).
STOPPED = re.compile(r"stopped .*\(signal \w+\)")
TAIL_BYTES = 4096


def error_after_status(directory: Path, state: str | None, job: str | None, log: Path) -> str:
    """Return why a run never started, or why its job ended after the run's last status.

    The log of a process on this machine is not used for a run that has started: other seeds may
    share the log.

    Args:
        directory: the run directory.
        state: state in its `status.json`; None if there is none.
        job: id of its SLURM job; None without one.
        log: log file of the job, or of the process on this machine.

    Returns:
        The error message; empty if there is none.
    """
    if state is not None:
        try:
            status = directory / "status.json"
            if job is None or log.stat().st_mtime < status.stat().st_mtime:
                return ""
        except OSError:
            return ""
    return last_error(log)


def last_error(log: Path) -> str:
    """Return the last error message of a log; empty if there is none.

    A requeued job appends to its log, so an error before the line of a stop is that of an earlier
    start.
    """
    for line in reversed(_tail(log)):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
        if STOPPED.fullmatch(line):
            return ""
    return ""


def last_line(log: Path) -> str:
    """Return the last line of a log that says why its job ended; empty if there is none.

    `srun` ends with the exit code of a process, whose own lines say more.
    """
    lines = [line.strip() for line in _tail(log) if line.strip()]
    own = [line for line in lines if not line.startswith("srun: ")]
    return (own or lines or [""])[-1]


def _tail(log: Path) -> list[str]:
    """Return the lines in the last `TAIL_BYTES` of a log; none if it cannot be read."""
    try:
        with open(regular(log, None), "rb") as file:
            file.seek(max(log.stat().st_size - TAIL_BYTES, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
