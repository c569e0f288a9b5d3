"""Cancelling the processes of a sweep: launchers, and what launchers that were killed have left."""

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
from sweeps.tracking.silence import SILENT_SECONDS
from sweeps.tracking.sweep_folder import record_end, write_submission
from tdmpc2.common.system.processes import identity_of
from tests.sweeps.directories import one_array, plan, write_sweep
from tests.sweeps.fake_slurm import use_fake_slurm

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


def train(
    run: PlannedRun, command: list[str], slurm_job: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that holds the lease of a run.

    Args:
        run: the run.
        command: its command.
        slurm_job: id of the SLURM job in which it runs.
    """
    process = subprocess.Popen(command)
    run.directory.mkdir(parents=True, exist_ok=True)
    holder = {"token": "t", "slurm_job": slurm_job, **identity_of(process.pid)}
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
    assert cancel.main([f"runs={link}"]) == 1  # the launcher was given another name of the folder
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


def test_a_process_that_goes_on_with_another_launch_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """Such as a retry of several sweeps, a study, or a notebook."""
    launcher = subprocess.Popen(SLEEP)
    sleepers.append(launcher)
    first = write_sweep(tmp_path, plan(tmp_path, 1), **identity_of(launcher.pid))
    second = write_sweep(tmp_path, plan(tmp_path, 2), **identity_of(launcher.pid))
    record_end(first.path / "0001")
    assert cancel.main([f"runs={tmp_path}", f"sweep={first.name}"]) == 0
    assert capsys.readouterr().out == f"{first.name}: nothing is running or queued\n"
    assert launcher.poll() is None
    assert cancel.main([f"runs={tmp_path}", f"sweep={second.name}"]) == 0
    assert launcher.wait(30) == -signal.SIGTERM


def test_processes_inside_an_allocation_are_stopped_and_those_of_queued_jobs_left_to_slurm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    """`salloc` sets the variables of a job, also for what a launch on this machine starts."""
    use_fake_slurm(tmp_path / "bin", monkeypatch)
    runs = tmp_path / "runs"
    planned = plan(runs, 4)
    sweep = write_sweep(runs, planned, **{**identity_of(), "started_ticks": 1})
    arrays = one_array(runs, planned[2:], "70")
    write_submission(sweep.new_submission(), "slurm", arrays=arrays)
    file = sweep.path / "0001" / "process-00001.json"
    orphan = train(planned[0], [*SLEEP, f"spec={file}"], "55")
    manual = train(planned[1], [*SLEEP, "task=toy-pointmass"], "55")
    queued = train(planned[2], SLEEP, "70")
    sleepers += [orphan, manual, queued]
    assert cancel.main([f"runs={runs}"]) == 1
    printed = capsys.readouterr().out
    assert f"process {orphan.pid} is stopping; its launcher has ended" in printed
    assert orphan.wait(30) == -signal.SIGTERM
    host = socket.gethostname()
    assert f"process {manual.pid} on host {host} in SLURM job 55 goes on; stop it" in printed
    assert f"process {queued.pid} " not in printed
    assert "2 jobs cancelled (70)" in printed


def test_a_launcher_elsewhere_is_named_until_it_has_been_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its processes may be starting: they hold no lease yet."""
    planned = plan(tmp_path, 1)
    place = str(planned[0].directory.relative_to(tmp_path))
    elsewhere = {**identity_of(), "host": "elsewhere", "pid": 12}
    sweep = write_sweep(tmp_path, planned, processes=[[place]], **elsewhere)
    planned[0].directory.mkdir(parents=True)
    log, record = planned[0].log, sweep.path / "0001" / "submission.json"
    log.touch()
    line = f"{sweep.name}: launcher process 12 on host elsewhere may still run, which cannot be "
    old = log.stat().st_mtime - SILENT_SECONDS - 60
    for silent in (record, log):
        assert cancel.main([f"runs={tmp_path}"]) == 1
        printed = capsys.readouterr().out
        assert line in printed
        assert "nothing is running" not in printed
        os.utime(silent, (old, old))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert f"{sweep.name}: nothing is running or queued\n" in capsys.readouterr().out
    os.utime(record)
    gone = {**identity_of(), "started_ticks": 1}
    later = sweep.new_submission()
    write_submission(later, "local", **gone)  # whose runs write files, too
    assert cancel.main([f"runs={tmp_path}"]) == 0
    record_end(later)
    os.utime(record)
    assert cancel.main([f"runs={tmp_path}"]) == 0


def test_a_launcher_of_another_user_does_not_keep_others_from_being_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    first, second = (subprocess.Popen(SLEEP) for _ in range(2))
    sleepers += [first, second]
    sweep = write_sweep(tmp_path, plan(tmp_path, 1), **identity_of(first.pid))
    write_submission(sweep.new_submission(), "local", **identity_of(second.pid))
    kill = os.kill

    def refuse(pid: int, number: int) -> None:
        if number and pid == min(first.pid, second.pid):
            raise PermissionError
        kill(pid, number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        assert cancel.main([f"runs={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    refused, stopped = sorted((first, second), key=lambda process: process.pid)
    assert f"launcher process {refused.pid} belongs to another user, who can stop it\n" in printed
    assert stopped.wait(30) == -signal.SIGTERM
    assert refused.poll() is None
