"""Processes of sections: each section is a group, which is stopped with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

# How long a group may take to stop after SIGTERM before it is killed. The launcher of section
# `train` takes up to 30 s to stop its runs, which are in groups of their own.
STOP_SECONDS = 40.0
# Section `train` stops its launcher so long before its limit: it also needs time to start and to
# copy the records.
TRAIN_STOP_SECONDS = 60.0
POLL_SECONDS = 0.2


def start_group(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process as the leader of a new group, with its output in a log."""
    with open(log, "wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_groups(groups: Collection[int]) -> None:
    """Stop the processes of groups with SIGTERM, and kill those that remain after a while.

    The leaders may have ended before.
    """
    _send(groups, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while members(groups) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _send(groups, signal.SIGKILL)


def members(groups: Collection[int]) -> dict[int, int]:
    """Return the group of each process of these groups that has not ended, by process id."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended by now
            group = os.getpgid(process.pid)
            if group in groups and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = group
    return found


def _send(groups: Collection[int], number: signal.Signals) -> None:
    """Send a signal to the groups that have a process left."""
    for group in set(members(groups).values()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
