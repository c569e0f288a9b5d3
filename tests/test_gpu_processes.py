"""Processes of the GPU acceptance test end with their children, whatever ends them."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.kill_driver import FRESH_CONTEXT, Blow, Command
from tests.test_gpu_acceptance import FACTS, SCRIPT, plan_of

# A section that starts a process, prints a line and does not end.
HANGING = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.{handler})
wait = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", wait])
print("started", flush=True)
exec(wait)
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu_acceptance")


def gone(group: int) -> bool:
    """Waits for processes that were killed."""
    processes = importlib.import_module("gpu_sections.processes")
    for _ in range(200):
        if not processes.members([group]):
            return True
        time.sleep(0.05)
    return False


Start = Callable[[list[str], Path], "subprocess.Popen[bytes]"]


def hanging(command: ModuleType, started: list[int], handler: str = "SIG_DFL") -> Start:
    """Starts `HANGING` in place of a section, and returns when it has printed its line."""
    start_group = command.start_group

    def start(_: list[str], log: Path) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-c", HANGING.format(handler=handler)]
        process = start_group(line, log)
        while process.poll() is None and not log.read_text(encoding="utf-8").endswith("\n"):
            time.sleep(0.01)
        started.append(process.pid)
        return process

    return start


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_a_section_that_hangs_is_stopped_with_its_child(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    groups: list[int] = []
    monkeypatch.setattr(command, "start_group", hanging(command, groups, handler))
    if handler == "SIG_IGN":
        monkeypatch.setattr(importlib.import_module("gpu_sections.processes"), "STOP_SECONDS", 0.1)
    plan = plan_of(command, tmp_path, 0.1)
    command.run_all(["sync"], 1, plan)
    assert gone(*groups)
    assert plan.result("sync")["status"] == "timed out"


def test_the_child_of_a_section_that_has_ended_is_stopped(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    start_hanging = hanging(command, groups)

    def start(line: list[str], log: Path) -> subprocess.Popen[bytes]:
        process = start_hanging(line, log)
        process.kill()  # only the section itself
        return process

    monkeypatch.setattr(command, "start_group", start)
    plan = plan_of(command, tmp_path)
    command.run_all(["sync"], 1, plan)
    assert gone(*groups)
    result = plan.result("sync")
    assert (result["status"], result["key"]) == ("crashed", FACTS)
    assert result["message"].startswith("exit code -9, see ")


def test_sections_at_work_are_stopped_with_the_command(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    start_hanging = hanging(command, groups)

    def start(line: list[str], log: Path) -> subprocess.Popen[bytes]:
        if groups:
            raise KeyboardInterrupt
        return start_hanging(line, log)

    monkeypatch.setattr(command, "start_group", start)
    plan = plan_of(command, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        command.run_all(["sync", "memory"], 2, plan)
    assert gone(*groups)
    assert plan.result("sync")["status"] == "stopped"


def test_sigterm_stops_the_command_and_its_section(tmp_path: Path) -> None:
    blow = Blow("gpu_sections.processes:members", number=signal.SIGTERM)  # when the time is over
    line = ["small=true", "device=cpu", f"out={tmp_path}", "sections=memory", "limits=memory=0.1"]
    env = {"PYTHONPATH": str(SCRIPT.parent)}
    done = Command(line, blow, env=env, module=SCRIPT.stem).run()
    assert done.code == 130, done
    result = json.loads((tmp_path / "sections" / "memory.json").read_text())
    assert result["status"] == "stopped"
    assert "**memory**: stopped: with the command" in (tmp_path / "acceptance.md").read_text()


def test_the_driver_starts_processes_for_any_gpu_from_scratch() -> None:
    for device, fresh in (("cuda", True), ("cuda:1", True), ("cpu", False)):
        driven = Command([f"device={device}"])
        driven._folder.cleanup()
        assert isinstance(driven._process, FRESH_CONTEXT.Process) == fresh
