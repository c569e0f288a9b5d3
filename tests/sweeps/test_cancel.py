"""Cancelling a sweep: SLURM jobs by recorded id, only the user's own; processes by their lease."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps import cancel
from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking.sweep_folder import job_name
from tdmpc2.common.system.processes import identity_of
from tests.sweeps.directories import one_array, plan, write_sweep

# A queue of two users. It holds more jobs of the same name: of other folders of runs, of other
# users, and of an id that merely begins like one of the sweep.
SQUEUE = """#!/bin/sh
echo "$@" >> {folder}/asked
own="--user={user}"
for option in "$@"; do [ "$option" = "$own" ] && only=1; done
printf '70_0|RUNNING\\n70_1|PENDING\\n71|PENDING\\n700_0|RUNNING\\n80_0|PENDING\\n'
[ -n "$only" ] || printf '72_0|RUNNING\\n72_1|RUNNING\\n81|PENDING\\n'
"""


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a cluster; return the file to which `scancel` writes its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "squeue": SQUEUE.format(folder=folder, user=os.getuid()),
        "scancel": f'#!/bin/sh\necho "$@" >> {folder}/named\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder / "named"


def test_only_recorded_jobs_of_the_user_are_named(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    planned = plan(runs, 2)
    arrays = one_array(runs, planned, "70") + one_array(runs, planned, "72")
    sweep = write_sweep(runs, planned, cluster="slurm", arrays=arrays, figures="71")
    assert cancel.main([f"runs={runs}"]) == 0
    assert scancel.read_text(encoding="utf-8") == "70 71\n"
    printed = capsys.readouterr().out
    assert f"{sweep.name}: 3 jobs cancelled (70, 71)" in printed
    assert f"{sweep.name}: 2 jobs of other users are left" in printed
    asked = (scancel.parent / "asked").read_text()
    assert asked.count(f"--name={job_name(sweep.name)}") == 2


def test_a_sweep_of_the_same_name_elsewhere_is_left_alone(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders hold the same runs, so the names of their jobs are equal."""
    here, there = tmp_path / "here", tmp_path / "there"
    for runs, job in ((here, "90"), (there, "70")):
        planned = plan(runs, 2)
        write_sweep(runs, planned, cluster="slurm", arrays=one_array(runs, planned, job))
    assert cancel.main([f"runs={here}"]) == 0
    assert not scancel.exists()
    assert "nothing is running or queued" in capsys.readouterr().out


def test_without_squeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(tmp_path, 1)
    arrays = one_array(tmp_path, planned, "70")
    write_sweep(tmp_path, planned, cluster="slurm", arrays=arrays)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert "squeue does not respond on this machine" in capsys.readouterr().out


# A launcher: it stops its child after SIGTERM.
PARENT = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    child.kill()
    child.wait()
    sys.exit(130)
"""
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are killed after the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def train(run: PlannedRun, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process that holds the lease of a run."""
    process = subprocess.Popen(command)
    run.directory.mkdir(parents=True, exist_ok=True)
    holder = {"token": "t", "slurm_job": None, **identity_of(process.pid)}
    (run.directory / "lease.json").write_text(json.dumps(holder))
    return process


def test_processes_of_a_killed_launcher_are_stopped_and_others_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """The launcher may be gone: killed with SIGKILL, or out of memory."""
    runs, link = tmp_path / "runs", tmp_path / "link"
    planned = plan(runs, 3)
    sweep = write_sweep(runs, planned, **{**identity_of(), "started_ticks": 1})
    file = sweep.path / "0001" / "process-00001.json"
    link.symlink_to(runs)
    other = link.with_name("other") / "sweeps" / sweep.name / "0001" / "process-00001.json"
    orphan = train(planned[0], [*SLEEP, f"spec={file}"])
    manual = train(planned[1], [*SLEEP, "task=toy-pointmass"])
    elsewhere = train(planned[2], [*SLEEP, f"spec={other}"])
    sleepers += [orphan, manual, elsewhere]
    assert cancel.main([f"runs={link}"]) == 0  # the launcher was given another name of the folder
    printed = capsys.readouterr().out
    assert f"process {orphan.pid} is stopping; its launcher has ended" in printed
    assert orphan.wait(30) == -signal.SIGTERM
    for process in (manual, elsewhere):
        assert f"process {process.pid} on host {socket.gethostname()} goes on" in printed
        assert process.poll() is None
    assert "nothing is running" not in printed


def test_the_processes_of_a_launcher_that_runs_are_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sleepers: list[subprocess.Popen[bytes]]
) -> None:
    planned = plan(tmp_path, 2)
    launcher = subprocess.Popen([*SLEEP[:2], PARENT], stdout=subprocess.PIPE)
    sleepers.append(launcher)
    assert launcher.stdout is not None
    with launcher.stdout:
        child = int(launcher.stdout.readline())
    write_sweep(tmp_path, planned, **identity_of(launcher.pid))
    for run, pid in zip(planned, (child, launcher.pid), strict=True):  # the second: inline
        run.directory.mkdir(parents=True, exist_ok=True)
        (run.directory / "lease.json").write_text(json.dumps({"token": "t", **identity_of(pid)}))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert f"launcher process {launcher.pid} is stopping its runs" in printed
    assert launcher.wait(30) == 130
