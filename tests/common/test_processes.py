"""Identity of processes: real PID namespaces, hidden processes, host names and clocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tdmpc2.common.run.lock import Lease, live_holder
from tdmpc2.common.system.processes import identity_of, runs

ASK = """
import json, os, sys
from tdmpc2.common.system.processes import runs
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
print(json.dumps(runs(json.loads(sys.argv[1]))))
"""
ACQUIRE = """
import sys
from pathlib import Path
from tdmpc2.common.run.lock import InUseError, Lease
try:
    with Lease(Path(sys.argv[1])):
        print("acquired", flush=True)
        sys.stdin.read()
except InUseError as error:
    print("refused:", error)
"""
NEW_PIDS = ["unshare", "--pid", "--fork", "--mount-proc"]
NEW_HOST = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
HIDDEN = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t proc -o hidepid=2 proc /proc; exec "$@"',
    "sh",
]
NOBODY = "65534"

isolated = pytest.mark.skipif(
    subprocess.run([*NEW_PIDS, "true"], capture_output=True).returncode != 0,
    reason="the kernel does not let this user create namespaces",
)


def ask(process: dict[str, Any], *more: str, within: Sequence[str] = ()) -> bool | None:
    """Return the answer of `runs` in another process, e.g. in another namespace."""
    command = [*within, sys.executable, "-c", ASK, json.dumps(process), *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_a_process_that_can_be_seen() -> None:
    assert runs(identity_of()) is True
    assert ask(identity_of()) is True
    assert runs({**identity_of(), "started_ticks": 1}) is False
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = identity_of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert runs(identity) is False  # a zombie
    child.wait()
    assert runs(identity) is False


@pytest.mark.parametrize("damage", [{"pid": None}, {"pid": "1"}, {"pid": -1}, {"pid": True}])
def test_nothing_is_known_of_a_damaged_record(damage: dict[str, Any]) -> None:
    assert runs({**identity_of(), **damage}) is None
    assert runs({}) is None


def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = identity_of()
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert identity_of() == identity
    assert runs(identity) is True


@isolated
@pytest.mark.parametrize("within", [NEW_PIDS, NEW_HOST], ids=["container", "host name"])
def test_nothing_is_known_elsewhere(within: list[str], tmp_path: Path) -> None:
    """Neither there of a process here, nor here of a process there."""
    assert ask(identity_of(), within=within) is None
    with Lease(tmp_path):
        refused = [*within, sys.executable, "-c", ACQUIRE, str(tmp_path)]
        answer = subprocess.run(refused, check=True, capture_output=True, text=True).stdout
        assert answer.startswith(f"refused: {tmp_path}: in use by process {os.getpid()}")
        assert "120 s after its last heartbeat" in answer
    command = [*within, sys.executable, "-c", ACQUIRE, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "acquired\n"
        there = json.loads((tmp_path / "lease.json").read_text())
        assert runs(there) is None
        assert live_holder(tmp_path) == there
        with pytest.raises(Exception, match="in use by process"), Lease(tmp_path):
            pass


@isolated
def test_nothing_is_known_of_a_hidden_process() -> None:
    """Another user's process is hidden; one of the same user, and a free id, are not."""
    assert ask(identity_of(), within=HIDDEN) is True
    assert ask(identity_of(), NOBODY, within=HIDDEN) is None
    assert ask({**identity_of(), "pid": 2**22 + 1}, NOBODY, within=HIDDEN) is False
    assert ask(identity_of(), NOBODY) is True
