"""Runs whose process or job lives but records no progress: an environment may hang, for example.

Nothing stops such a process, since a long compilation or update looks the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SILENT_SECONDS = 600.0
"""Time without progress after which a run is named; its status is else written every 2 s."""


def silent_seconds(directory: Path, holder: Mapping[str, Any]) -> float:
    """Return how long the process of a run has been alive without recording progress.

    That is the time from its last status, or from its start, to its last heartbeat. The same
    process has written all three, so the clocks of other machines do not matter.

    Args:
        directory: the run directory.
        holder: holder of its lease, see `live_holder`.
    """
    begin = holder.get("acquired")
    if not isinstance(begin, float):  # a lease of version 0.4.0
        return 0.0
    signs = [begin]
    with contextlib.suppress(OSError):
        signs.append((directory / "status.json").stat().st_mtime)
    with contextlib.suppress(OSError):
        return max((directory / "lease.json").stat().st_mtime - max(signs), 0.0)
    return 0.0


def silence(directory: Path, holder: Mapping[str, Any] | None) -> str:
    """Return what to do about a run that has recorded no progress for long; else an empty text.

    Args:
        directory: the run directory.
        holder: holder of its lease; None if no process holds it.
    """
    seconds = 0.0 if holder is None else silent_seconds(directory, holder)
    if holder is None or seconds < SILENT_SECONDS:
        return ""
    pid, host, job = (holder.get(key) for key in ("pid", "host", "slurm_job"))
    end = f"kill -9 {pid}" if job is None else f"scancel {job}"
    return (
        f"no progress for {seconds / 60:,.0f} min, though process {pid} on host {host} is alive: "
        f"its environment may hang (py-spy dump --pid {pid} shows where); to resume it from its "
        f"last checkpoint, end it there ({end}) and launch again"
    )


def silence_in_job(directory: Path, job: str, log: Path, now: float) -> str:
    """Return what to do about a run that no process has held for long, though its job runs.

    Its process was killed or refused while others of the job go on, or hangs before it begins. A
    process writes to the log of its output when it starts, also after a requeue.

    Args:
        directory: the run directory.
        job: id of its SLURM job.
        log: file with the standard error of the job's process.
        now: current `file_system_time`.

    Returns:
        An empty text if something was written less than `SILENT_SECONDS` ago.
    """
    signs = []
    for file in (directory / "status.json", log, log.with_suffix(".out")):
        with contextlib.suppress(OSError):
            signs.append(file.stat().st_mtime)
    seconds = now - max(signs, default=now)
    if seconds < SILENT_SECONDS:
        return ""
    return (
        f"no process has trained it for {seconds / 60:,.0f} min, though its job {job} runs: it was "
        f"killed or refused, or hangs before it begins ({log} may say why); to start it again, end "
        f"the job (scancel {job}), which also stops its other runs, and launch again"
    )
