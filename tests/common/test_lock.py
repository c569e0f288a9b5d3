"""The lease of a run directory: exclusive use, expiry and takeover."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.run import lock as lease_module
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.lock import (
    EXPIRY_SECONDS,
    HEARTBEAT_SECONDS,
    Lease,
    LeaseLostError,
    file_system_time,
    live_holder,
)
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.processes import identity_of

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def _watched_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired leases are watched for a moment instead of two heartbeats."""
    monkeypatch.setattr(lease_module, "WATCH_SECONDS", 0.2)


def leave(directory: Path, age: float = 0.0, **changes: Any) -> None:
    """Write a lease of this process with some fields changed and a heartbeat `age` seconds old."""
    holder = {"token": "theirs", **identity_of(), "slurm_job": None, "slurm_restart": 0}
    path = directory / "lease.json"
    path.write_text(json.dumps({**holder, **changes}))
    make_older(path, age)


def make_older(path: Path, age: float) -> None:
    """Set the modification time of a file `age` seconds back."""
    os.utime(path, (path.stat().st_mtime - age,) * 2)


def test_given_back_at_the_end(tmp_path: Path) -> None:
    with Lease(tmp_path):
        holder = json.loads((tmp_path / "lease.json").read_text())
        assert (holder["host"], holder["pid"]) == (HERE, os.getpid())
        assert identity_of().items() <= holder.items()
    assert list(tmp_path.iterdir()) == []


def test_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oops"), Lease(tmp_path):
        raise ValueError("oops")
    assert list(tmp_path.iterdir()) == []


def test_a_live_holder_keeps_it(tmp_path: Path) -> None:
    with Lease(tmp_path):
        before = (tmp_path / "lease.json").read_text()
        message = f"in use by process {os.getpid()} on host {HERE}; wait for it or stop it"
        with pytest.raises(UserError, match=message), Lease(tmp_path):
            pass
        assert (tmp_path / "lease.json").read_text() == before
        assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_a_dead_process_makes_room(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    identity = identity_of(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    for reaped in (False, True):  # first it is a zombie, then it is gone
        if reaped:
            process.wait()
        leave(tmp_path, **identity)
        with Lease(tmp_path) as lease:
            assert json.loads((tmp_path / "lease.json").read_text())["token"] == lease.token


def test_a_reused_process_id_makes_room(tmp_path: Path) -> None:
    leave(tmp_path, started_ticks=identity_of()["started_ticks"] - 1)
    with Lease(tmp_path):
        pass


@pytest.mark.parametrize(
    ("holder", "free"),
    [
        ({"host": "elsewhere"}, False),
        (
            {"host": "elsewhere", "pid": 2**22 + 1},
            False,
        ),  # a process id of another host is not checked
        ({"host": "elsewhere", "age": EXPIRY_SECONDS / 2}, False),
        ({"host": "elsewhere", "age": EXPIRY_SECONDS * 10}, True),
        # A container with the same host name, another machine with it, or an earlier boot.
        ({"pid_namespace": "pid:[1]", "pid": 2**22 + 1}, False),
        ({"boot": "another", "pid": 2**22 + 1}, False),
        ({"boot": "another", "age": EXPIRY_SECONDS * 10}, True),
        # A lease of version 0.4.0.
        ({"boot": None, "pid_namespace": None, "started_ticks": None}, False),
        # Where the process can be seen, only the process counts.
        ({"age": EXPIRY_SECONDS * 10}, False),
        ({"pid": 2**22 + 1}, True),
        ({"pid": 2**70}, True),
    ],
)
def test_an_unknown_process_is_believed_until_its_heartbeat_stops(
    holder: dict[str, Any], free: bool, tmp_path: Path
) -> None:
    leave(tmp_path, **holder)
    assert acquired(tmp_path) is free


@pytest.mark.parametrize("age", [EXPIRY_SECONDS * 10, -EXPIRY_SECONDS * 10])
@pytest.mark.parametrize("beats", [True, False])
def test_a_wrong_clock_neither_ends_a_run_nor_keeps_a_dead_one(
    age: float, beats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set forward or back, or clients set the times of files and disagree."""
    leave(tmp_path, age=age, host="elsewhere")
    assert live_holder(tmp_path) is None  # as far as one look can tell
    if not beats:
        assert acquired(tmp_path)
        return
    monkeypatch.setattr(lease_module, "WATCH_SECONDS", 30.0)
    beat = threading.Timer(0.5, make_older, (tmp_path / "lease.json", -HEARTBEAT_SECONDS))
    beat.start()
    with pytest.raises(UserError, match="in use by process"), Lease(tmp_path):
        pass
    beat.join()
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_waiting_for_a_heartbeat_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path, age=EXPIRY_SECONDS * 10, host="elsewhere")
    assert acquired(tmp_path)
    assert "on host elsewhere is old; waiting" in capsys.readouterr().err


def test_the_time_of_a_folder_that_cannot_be_written_is_that_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdmpc2.common.run.lock.time.time", lambda: 123.0)
    assert file_system_time(tmp_path / "missing") == 123.0
    (folder := tmp_path / "folder").mkdir()
    (before := tmp_path / "before").touch()
    found = file_system_time(folder)
    (after := tmp_path / "after").touch()
    assert before.stat().st_mtime <= found <= after.stat().st_mtime
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "restart", "free"),
    [
        ("7", "2", True),
        ("7", "1", False),
        ("7", "0", False),
        ("8", "2", False),
        (None, None, False),
    ],
)
def test_a_restarted_slurm_job_takes_over_at_once(
    job: str | None,
    restart: str | None,
    free: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("SLURM_JOB_ID", job), ("SLURM_RESTART_COUNT", restart)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    leave(tmp_path, host="elsewhere", slurm_job="7", slurm_restart=1)
    assert acquired(tmp_path) is free


@pytest.mark.parametrize(("age", "free"), [(0.0, False), (EXPIRY_SECONDS * 10, True)])
def test_an_unreadable_lease_expires(age: float, free: bool, tmp_path: Path) -> None:
    leave(tmp_path)
    os.truncate(tmp_path / "lease.json", 20)
    make_older(tmp_path / "lease.json", age)
    assert acquired(tmp_path) is free


def acquired(directory: Path) -> bool:
    """Return whether the lease can be acquired; if not, the holder's file is unchanged."""
    before = (directory / "lease.json").read_bytes()
    try:
        with Lease(directory) as lease:
            holder = json.loads((directory / "lease.json").read_text())
            assert holder["token"] == lease.token
    except UserError:
        assert (directory / "lease.json").read_bytes() == before
        return False
    assert list(directory.iterdir()) == []
    return True


class Beats:
    """Replaces the stop event of the heartbeat thread; allows a given number of heartbeats."""

    def __init__(self, number: int) -> None:
        self.left = number

    def wait(self, seconds: float) -> bool:
        assert seconds == HEARTBEAT_SECONDS
        self.left -= 1
        return self.left < 0


def test_the_heartbeat_keeps_the_lease_fresh(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        os.utime(lease.path, (0, 0))
        lease._stop, original = Beats(1), lease._stop  # type: ignore[assignment]
        lease._beat()
        lease._stop = original
        assert lease.path.stat().st_mtime > 0
        lease.check()


def test_a_process_notices_that_it_was_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.001)
    with Lease(tmp_path) as lease:
        lease.check()
        leave(tmp_path, host="elsewhere")
        assert lease._thread is not None
        lease._thread.join()
        with pytest.raises(LeaseLostError, match="another process has taken over"):
            lease.check()
    assert json.loads(lease.path.read_text())["token"] == "theirs"


def test_only_one_of_many_takes_over(tmp_path: Path) -> None:
    number = 8
    for _ in range(50):
        leave(tmp_path, started_ticks=0)
        start, tried = threading.Barrier(number), threading.Barrier(number)

        def contend(_: int, start: threading.Barrier = start, tried: Any = tried) -> bool:
            """Try to acquire the lease at the same time as others; hold it until all have tried."""
            start.wait()
            try:
                with Lease(tmp_path):
                    tried.wait()
                    return True
            except UserError:
                tried.wait()
                return False

        with ThreadPoolExecutor(number) as pool:
            assert sum(pool.map(contend, range(number))) == 1
        assert list(tmp_path.iterdir()) == []


# --- writes of a process that has lost its lease ---------------------------------------


def test_nothing_is_written_after_another_process_has_taken_over(tmp_path: Path) -> None:
    """The holder need not wait for its next heartbeat to notice."""
    spec = RunSpec("counting", "toy-pointmass", 1, 100)
    with Lease(tmp_path) as lease:
        records = RunFiles(tmp_path, spec, {}, lease.verify)
        checkpoints = CheckpointStore(tmp_path, check=lease.verify)
        records.csv["eval"].append({"env_step": 0})
        checkpoints.save(0, {}, None)
        records.set_state("RUNNING", 0)
        leave(tmp_path)
        before = contents(tmp_path)
        for write in (
            lambda: records.csv["eval"].append({"env_step": 1}),
            lambda: records.set_state("RUNNING", 1),
            lambda: records.write_spec({}),
            lambda: records.cut_back({}),
            lambda: checkpoints.save(1, {}, None),
        ):
            with pytest.raises(LeaseLostError, match="another process has taken over"):
                write()
        assert contents(tmp_path) == before
    assert json.loads(lease.path.read_text())["token"] == "theirs"


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of each file below a directory, by its relative path."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_an_error_of_the_file_system_does_not_end_the_heartbeat(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(number, os.strerror(number))] * 3
    read = lease_module._read

    def failing(path: Path) -> dict[str, Any] | None:
        if failures:
            raise failures.pop()
        return read(path)

    with Lease(tmp_path) as lease:
        os.utime(lease.path, (0, 0))
        monkeypatch.setattr(lease_module, "_read", failing)
        lease.verify()  # its last heartbeat has not expired
        lease._stop, original = Beats(3), lease._stop  # type: ignore[assignment]
        lease._beat()
        lease._stop = original
        assert failures == []
        assert lease.path.stat().st_mtime > 0
        lease.verify()


def test_a_lease_that_stays_unreadable_is_lost_when_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with Lease(tmp_path) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "_read", failing)
            now = lease_module._seconds()
            patch.setattr(lease_module, "_seconds", lambda: now + EXPIRY_SECONDS + 1)
            with pytest.raises(LeaseLostError, match="not readable for 120 s"):
                lease.verify()
        lease.verify()


# --- damaged lease files ---------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff\x00", b"[" * 100_000])
@pytest.mark.parametrize("age", [0.0, EXPIRY_SECONDS * 10])
def test_a_damaged_lease_expires_and_is_named(content: bytes, age: float, tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_bytes(content)
    make_older(path, age)
    if age == 0.0:
        with pytest.raises(UserError, match=r"damaged.* try again in 120 s, or remove"):
            Lease(tmp_path).__enter__()
        assert path.read_bytes() == content
    assert acquired(tmp_path) is (age > 0.0)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link loop"])
def test_a_lease_that_is_no_file_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "link loop" else tmp_path / "nothing")
    with pytest.raises(UserError, match=r"lease\.json: not a file; remove it") as raised:
        Lease(tmp_path).__enter__()
    assert "\n" not in str(raised.value)
    assert live_holder(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["lease.json"]


def test_a_lease_without_its_thread_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="new thread"), Lease(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
