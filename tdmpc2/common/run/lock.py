"""Lease on a run directory: only one process uses a run at a time, also on network file systems.

The process that runs an experiment holds the lease file `lease.json` in the run directory. A
background thread renews it every 15 s by setting its modification time (the heartbeat). A second
process that wants the run fails with `InUseError` while the holder is alive. If the holder is dead,
the second process takes the lease over and resumes the run from its last checkpoint.
"""

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
# A lease held on another host expires after this many seconds without a heartbeat.
EXPIRY_SECONDS = 120.0


class InUseError(UserError):
    """Another live process holds the lease of the run."""


class LeaseLostError(UserError):
    """Another process has taken over the lease because this one's heartbeat had expired."""


class Lease:
    """Exclusive use of a run directory, as a context manager.

    The lease file is created with `link`, which is atomic on network file systems too. It names
    the host, the process (with its start time, since process ids are reused), and the SLURM job
    with its restart count. Another process may take the lease over if

    - the holder ran on the same host and that process no longer exists,
    - the holder was an earlier start of the same SLURM job (its restart count is lower), or
    - the holder ran on another host and its heartbeat is older than `EXPIRY_SECONDS` (120 s),
      measured by the clock of the file system.

    A holder that has lost its lease (after a long suspension, say) notices at its next heartbeat.
    `check` then raises, and training stops without writing `status.json`.

    Args:
        directory: the run directory.

    Attributes:
        lost: whether another process has taken over the lease.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lease.json"
        self.token = uuid.uuid4().hex
        self.lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Acquire the lease and start the heartbeat.

        Raises:
            InUseError: another live process holds the lease.
        """
        self._acquire()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease heartbeat")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the heartbeat and remove the lease file, unless another process has taken over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        holder = _read(self.path)
        if holder is not None and holder.get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            LeaseLostError: another process has taken over.
        """
        if self.lost:
            raise LeaseLostError(
                f"{self.path.parent}: another process has taken over this run; this one stops"
            )

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
        raise InUseError(
            f"{self.path}: could not be acquired, since several processes try to; try again"
        )

    def _remove_if_dead(self) -> None:
        """Remove the lease of a dead process; raise `InUseError` if the holder is alive."""
        holder = _read(self.path)
        if holder is None:  # released in the meantime
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
                # Another process replaced the dead lease just before the rename: restore its lease.
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
    """Return the live holder of a run's lease (host, process, SLURM job), or None.

    Args:
        directory: the run directory.
        now: current `file_system_time` of its file system; None measures it. Callers that check
            many runs measure it once.
    """
    path = directory / "lease.json"
    holder = _read(path)
    return None if holder is None or _is_dead(holder, path, now) else holder


def file_system_time(folder: Path) -> float:
    """Return the current time by the clock of the file system, in seconds since the epoch.

    The clock of a network file system is that of its server and may differ from this machine's.
    """
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Serialize the processes that acquire a lease, if the file system can lock a folder.

    If it cannot (NFS), three processes that find the same dead lease at the same moment may end
    with two holders. One of these notices at its next heartbeat that it has lost the lease.
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
    except FileNotFoundError:  # released in the meantime
        return False
    return (file_system_time(path.parent) if now is None else now) - last > EXPIRY_SECONDS


def process_started() -> float:
    """Return the start time of this process, in seconds since the epoch.

    Together with its id it identifies the process, since process ids are reused.
    """
    return psutil.Process().create_time()


def process_runs(pid: int, started: float) -> bool:
    """Return whether a process of this host, with that id and start time, is alive."""
    try:
        process = psutil.Process(pid)
        return (
            abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False
