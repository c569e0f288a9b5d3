"""The lease of a run directory: exclusive use, expiry and takeover."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tdmpc2.common.run import lock as lease_module
from tdmpc2.common.run.lock import EXPIRY_SECONDS, HEARTBEAT_SECONDS, Lease, LeaseLostError
from tdmpc2.common.system.errors import UserError

HERE = socket.gethostname()


def leave(directory: Path, age: float = 0.0, **changes: Any) -> None:
    """Write a lease of this process with some fields changed and a heartbeat `age` seconds old."""
    holder = {
        "token": "theirs",
        "host": HERE,
        "pid": os.getpid(),
        "pid_started": psutil.Process().create_time(),
        "slurm_job": None,
        "slurm_restart": 0,
    }
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
        assert holder["pid_started"] == psutil.Process().create_time()
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
    started = psutil.Process(process.pid).create_time()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    for reaped in (False, True):  # first it is a zombie, then it is gone
        if reaped:
            process.wait()
        leave(tmp_path, pid=process.pid, pid_started=started)
        with Lease(tmp_path) as lease:
            assert json.loads((tmp_path / "lease.json").read_text())["token"] == lease.token


def test_a_reused_process_id_makes_room(tmp_path: Path) -> None:
    leave(tmp_path, pid_started=psutil.Process().create_time() - 100)
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
        ({"age": EXPIRY_SECONDS * 10}, False),  # on the same host only the process counts
    ],
)
def test_another_host_is_believed_until_its_heartbeat_stops(
    holder: dict[str, Any], free: bool, tmp_path: Path
) -> None:
    leave(tmp_path, **holder)
    assert acquired(tmp_path) is free


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
        leave(tmp_path, pid_started=0.0)
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
