"""Processes: their identity across hosts and containers, and what ends a command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity_of(pid: int | None = None) -> dict[str, Any]:
    """Return what identifies a process: host, boot, PID namespace, process id and start.

    Args:
        pid: id of a process in this PID namespace; this process if None.
    """
    pid = os.getpid() if pid is None else pid
    return {**_place(), "pid": pid, "started_ticks": _start_and_state(pid)[0]}


def runs(process: Mapping[str, Any]) -> bool | None:
    """Return whether a process runs; None if that cannot be known from here.

    A process id says something only within one PID namespace (a container has its own) between two
    boots of a machine, and where `/proc` shows the processes of its user.

    Args:
        process: what `identity_of` returned for it; other entries are ignored.
    """
    pid, ticks = process.get("pid"), process.get("started_ticks")
    if any(process.get(key) != value for key, value in _place().items()):
        return None
    if type(pid) is not int or pid <= 0 or ticks is None:
        return None
    try:
        os.kill(pid, 0)  # also sees processes that /proc hides
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    started, zombie = _start_and_state(pid)
    return None if started is None else started == ticks and not zombie


def parent_of(pid: int) -> int | None:
    """Return the id of the process that a process is a child of; None if it is unknown."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process; empty if it is unknown."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def _place() -> dict[str, Any]:
    """Return host, boot and PID namespace of this process; the last two are None off Linux."""
    boot = namespace = None
    if sys.platform == "linux":
        try:
            boot = _BOOT_ID.read_text(encoding="utf-8").strip()
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:  # nothing is known of any other process
            boot = f"unknown to process {os.getpid()}"
    return {"host": socket.gethostname(), "boot": boot, "pid_namespace": namespace}


def _start_and_state(pid: int) -> tuple[float | None, bool]:
    """Return the start time of a process, None if unknown, and whether it is a zombie.

    On Linux the time is in clock ticks since boot, which a step of the wall clock does not change.
    """
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return process.create_time(), process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None, False
    try:
        # The name of the program, in parentheses, may itself contain blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]), fields[0] in (b"Z", b"X")
    except (OSError, IndexError, ValueError):
        return None, False


def interrupt_on_signals() -> None:
    """Have SIGTERM, and SIGHUP of a closed terminal, end this command as Ctrl-C does.

    A SIGHUP that is ignored, as with `nohup`, stays ignored.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
