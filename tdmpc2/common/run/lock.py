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
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.processes import identity_of, runs
from tdmpc2.common.system.regular_files import regular

HEARTBEAT_SECONDS = 15.0
# A lease of whose holder nothing is known expires after this many seconds without a heartbeat.
EXPIRY_SECONDS = 120.0
# How long an expired lease is watched before it is taken over, since clocks may be wrong.
WATCH_SECONDS = 2 * HEARTBEAT_SECONDS


class InUseError(UserError):
    """Another live process holds the lease of the run."""


class LeaseLostError(UserError):
    """Another process has taken over the lease because this one's heartbeat had expired."""


class Lease:
    """Exclusive use of a run directory, as a context manager.

    The lease file is created with `link`, which is atomic on network file systems too. It names
    the process (see `identity_of`), and the SLURM job with its restart count. Another process may
    take the lease over if

    - the holder has certainly ended: it had the same host, boot and PID namespace, and its process
      id is free or belongs to a process that started at another time,
    - the holder was an earlier start of the same SLURM job (its restart count is lower), or
    - nothing is known of the holder, its heartbeat is older than `EXPIRY_SECONDS` (120 s) or as
      far in the future, measured by the clock of the file system, and no other heartbeat comes
      within `WATCH_SECONDS` (30 s). A clock that was changed, or clocks of two machines that
      disagree, therefore end no run.

    A holder that has lost its lease (after a long suspension, say) notices before its next write
    to the run directory: `verify` then raises, and training stops.

    Args:
        directory: the run directory.

    Attributes:
        lost: whether another process has taken over the lease.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lease.json"
        self.token = uuid.uuid4().hex
        self.lost = False
        self._confirmed = _seconds()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Acquire the lease and start the heartbeat.

        Raises:
            InUseError: another live process holds the lease.
            UserError: the lease file is damaged.
        """
        self._acquire()
        self._confirmed = _seconds()
        thread = threading.Thread(target=self._beat, daemon=True, name="lease heartbeat")
        try:
            thread.start()
        except BaseException:  # no further thread can be started
            self.__exit__()
            raise
        self._thread = thread
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the heartbeat and remove the lease file, unless another process has taken over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            self._confirm()
            if not self.lost:
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that this process still holds the lease, as of its last heartbeat.

        Raises:
            LeaseLostError: another process has taken over.
        """
        if self.lost:
            raise LeaseLostError(
                f"{self.path.parent}: another process has taken over this run; this one stops"
            )

    def verify(self) -> None:
        """Check that the lease file is this process's own; called before each write to the run.

        While the file cannot be read, the lease holds until its last heartbeat expires.

        Raises:
            LeaseLostError: another process has taken over, or could have.
        """
        try:
            self._confirm()
        except OSError as error:
            if _seconds() - self._confirmed > EXPIRY_SECONDS:
                raise LeaseLostError(
                    f"{self.path}: not readable for {EXPIRY_SECONDS:.0f} s ({error.strerror}), so "
                    "another process may have taken over this run; this one stops"
                ) from None
        self.check()

    def _confirm(self) -> None:
        """Read the lease file, and note whether it is still this process's own.

        Raises:
            OSError: the file exists, but cannot be read.
        """
        holder = _read(self.path)
        if holder is None or holder.get("token") != self.token:
            self.lost = True
        else:
            self._confirmed = _seconds()

    def _acquire(self) -> None:
        mine = self.path.with_name(f".lease.{self.token}")
        try:
            holder = _describe_self(self.token)
            mine.touch()
            holder["acquired"] = mine.stat().st_mtime  # by the clock of the file system
            mine.write_text(json.dumps(holder) + "\n", encoding="utf-8")
            seen = self._watch()
            with _locked(self.path.parent):
                for _ in range(50):
                    with contextlib.suppress(FileExistsError):
                        os.link(mine, self.path)
                        return
                    self._remove_if_dead(seen)
        finally:
            mine.unlink(missing_ok=True)
        raise InUseError(
            f"{self.path}: could not be acquired, since several processes try to; try again"
        )

    def _watch(self) -> int | None:
        """Watch the heartbeat of a lease that seems to have expired.

        Returns:
            The time of the heartbeat, in nanoseconds; None if there is no such lease.

        Raises:
            InUseError: the heartbeat goes on.
            UserError: the lease file cannot be read.
        """
        try:
            holder = _read(self.path)
            if holder is None or _has_ended(holder) is not None or not _is_expired(self.path):
                return None
            seen, deadline = _heartbeat(self.path), _seconds() + WATCH_SECONDS
            whose = f"process {holder.get('pid')} on host {holder.get('host')}"
            print(
                f"{self.path.parent}: the last heartbeat of "
                f"{whose if holder.get('token') else 'its lease'} is old; waiting "
                f"{WATCH_SECONDS:.0f} s for another one",
                file=sys.stderr,
                flush=True,
            )
            while _seconds() < deadline:
                time.sleep(min(1.0, WATCH_SECONDS))
                if _heartbeat(self.path) != seen:
                    raise InUseError(_in_use(holder, self.path))
        except FileNotFoundError:  # released in the meantime
            return None
        except OSError as error:
            if self.path.is_file():
                raise UserError(
                    f"{self.path}: cannot be read ({error.strerror}); try again"
                ) from None
            return None  # named by `_remove_if_dead`
        return seen

    def _remove_if_dead(self, seen: int | None) -> None:
        """Remove the lease of a dead process; raise `InUseError` if the holder may be alive.

        Args:
            seen: result of `_watch`.
        """
        if not self.path.is_file():
            if os.path.lexists(self.path):
                raise UserError(
                    f"{self.path}: not a file; remove it if no process uses this run directory"
                )
            return  # released in the meantime
        try:
            holder = _read(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); try again") from None
        if holder is None:  # released in the meantime
            return
        ended = _has_ended(holder)
        if ended is None:
            with contextlib.suppress(OSError):
                ended = seen is not None and seen == _heartbeat(self.path)
        if not ended:
            raise InUseError(_in_use(holder, self.path))
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
        """Renew the lease regularly; after an error of the file system, try again at the next."""
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                self._confirm()
                if self.lost:
                    return
                os.utime(self.path)


def live_holder(directory: Path, now: float | None = None) -> dict[str, Any] | None:
    """Return the live holder of a run's lease (host, process, SLURM job), or None.

    Args:
        directory: the run directory.
        now: current `file_system_time` of its file system; None measures it. Callers that check
            many runs measure it once.
    """
    path = directory / "lease.json"
    try:
        holder = _read(path)
        if holder is None:
            return None
        ended = _has_ended(holder)
        return None if (_is_expired(path, now) if ended is None else ended) else holder
    except OSError:  # no file that a process could hold
        return None


def file_system_time(folder: Path) -> float:
    """Return the current time by the clock of the file system, in seconds since the epoch.

    The clock of a network file system is that of its server and may differ from this machine's,
    whose clock counts if the folder is missing, full or not writable.
    """
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _seconds() -> float:
    """Return the seconds since some moment, including those of a suspended machine."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


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
        **identity_of(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a lease file; None if there is none, `{}` if it is damaged.

    Raises:
        OSError: the file exists, but cannot be read.
    """
    try:
        holder = json.loads(regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_use(holder: dict[str, Any], path: Path) -> str:
    """Return the message of an `InUseError`."""
    if not holder.get("token"):
        return (
            f"{path}: damaged, so its holder is unknown; try again in {EXPIRY_SECONDS:.0f} s, or "
            "remove it if no process uses this run directory"
        )
    text = (
        f"{path.parent}: in use by process {holder.get('pid')} on host {holder.get('host')}; wait "
        "for it or stop it"
    )
    if runs(holder) is None:
        text += (
            f" (if it has ended, this is noticed {EXPIRY_SECONDS:.0f} s after its last heartbeat)"
        )
    return text


def _has_ended(holder: dict[str, Any]) -> bool | None:
    """Return whether the holder of a lease has ended; None if that cannot be known."""
    me = _describe_self("")
    restart, job = holder.get("slurm_restart"), holder.get("slurm_job")
    same_job = job is not None and job == me["slurm_job"]
    if same_job and isinstance(restart, int) and me["slurm_restart"] > restart:
        return True
    running = runs(holder)
    return None if running is None else not running


def _is_expired(path: Path, now: float | None = None) -> bool:
    """Return whether the heartbeat of a lease is old, or in the future by as much.

    Raises:
        OSError: the file cannot be read.
    """
    last = _heartbeat(path) / 1e9
    return abs((file_system_time(path.parent) if now is None else now) - last) > EXPIRY_SECONDS


def _heartbeat(path: Path) -> int:
    """Return the modification time of a lease file in nanoseconds.

    The file is opened, since NFS clients remember the times of files for up to a minute.

    Raises:
        OSError: the file cannot be read.
    """
    with open(regular(path), "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
