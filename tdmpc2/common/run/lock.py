"""A lease on a run directory: one process at a time, also on a shared file system."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tdmpc2.common.system.errors import UserError

HEARTBEAT_SECONDS = 15.0
# A lease of another host is dead after this many seconds without a heartbeat.
EXPIRY_SECONDS = 120.0


class InUseError(UserError):
    """Another process holds the run."""


class LeaseLostError(UserError):
    """Another process has taken over the run, believing this one dead."""


class Lease:
    """Exclusive use of a run directory while the context is entered.

    The lease is a file created by `link`, which is atomic on network file systems too. It
    names host, process (with its start time, since process ids are reused) and SLURM job
    with restart count. It may be taken over when its process is dead on this host, when the
    same SLURM job has been restarted, or when its heartbeat has stopped.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lease.json"
        self.token = uuid.uuid4().hex
        self.lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Acquires the lease.

        Raises:
            InUseError: another live process holds it.
        """
        self._acquire()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease heartbeat")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the lease back, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        holder = _read(self.path)
        if holder is not None and holder.get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises `LeaseLostError` if another process has taken over."""
        if self.lost:
            raise LeaseLostError(f"{self.path.parent}: another process has taken over this run")

    def _acquire(self) -> None:
        mine = self.path.with_name(f".lease.{self.token}")
        try:
            mine.write_text(json.dumps(_describe_self(self.token)) + "\n")
            with _locked(self.path.parent):
                for _ in range(50):
                    with contextlib.suppress(FileExistsError):
                        os.link(mine, self.path)
                        return
                    self._remove_if_dead()
        finally:
            mine.unlink(missing_ok=True)
        raise InUseError(f"{self.path}: could not be acquired; several processes want it")

    def _remove_if_dead(self) -> None:
        """Moves a dead lease aside; raises `InUseError` for a live one."""
        holder = _read(self.path)
        if holder is None:  # given back in between
            return
        if not _is_dead(holder, self.path):
            raise InUseError(
                f"{self.path.parent}: in use by process {holder.get('pid')} on host "
                f"{holder.get('host')}; wait for it or stop it"
            )
        aside = self.path.with_name(f".lease.dead.{self.token}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
            moved = _read(aside)
            if moved is not None and moved.get("token") != holder.get("token"):
                # Someone else replaced the dead lease a moment ago: put theirs back.
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            holder = _read(self.path)
            if holder is None or holder.get("token") != self.token:
                self.lost = True
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)


def live_holder(directory: Path, now: float | None = None) -> dict[str, Any] | None:
    """Who holds the lease of a run directory: host, process, SLURM job; None if nobody lives.

    Args:
        directory: of the run.
        now: `file_system_time` of the disk it lies on, for those who ask about many runs.
    """
    path = directory / "lease.json"
    holder = _read(path)
    return None if holder is None or _is_dead(holder, path, now) else holder


def file_system_time(folder: Path) -> float:
    """Now, by the clock of the file system itself, which may be another machine's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets processes try one after the other, where the file system can lock a folder.

    Where it cannot (NFS), three that find the same dead lease within the same moment could
    end as two holders, of whom one finds out at its next heartbeat.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _describe_self(token: str) -> dict[str, Any]:
    return {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": process_started(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return {}


def _is_dead(holder: dict[str, Any], path: Path, now: float | None = None) -> bool:
    me = _describe_self("")
    same_job = holder.get("slurm_job") is not None and holder["slurm_job"] == me["slurm_job"]
    if same_job and me["slurm_restart"] > holder.get("slurm_restart", 0):
        return True
    if holder.get("host") == me["host"]:
        return not process_runs(holder.get("pid", -1), holder.get("pid_started", 0.0))
    try:
        last = path.stat().st_mtime
    except FileNotFoundError:  # given back in between
        return False
    return (file_system_time(path.parent) if now is None else now) - last > EXPIRY_SECONDS


def process_started() -> float:
    """When this process began: with its id, what tells it from later ones of the same id."""
    return psutil.Process().create_time()


def process_runs(pid: int, started: float) -> bool:
    """Whether a process of this host is still alive."""
    try:
        process = psutil.Process(pid)
        return (
            abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False
