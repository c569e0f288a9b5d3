"""`benchmarks/sweep_scale.py` leaves no job in the queue, or says which folder has its jobs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

import pytest

from sweeps.execution.exit_codes import LEFT_OUT
from tests.sweeps.directories import one_array, plan, write_sweep

FOLDER = Path(__file__).parents[2] / "benchmarks"


class Commands:
    """Stands for the commands of the sweeps, and for the queue.

    Attributes:
        called: the commands that were called.
        fails: command that fails.
        stays: whether cancelled jobs stay in the queue.
        array: id of the job array that a launch submits; None if it submits nothing.
        recorded: whether the launch has recorded that id.
    """

    def __init__(self) -> None:
        self.called: list[str] = []
        self.fails, self.stays, self.recorded = "", False, True
        self.array: str | None = "70"
        # A sweep of the same runs in another folder has jobs of the same name.
        self.queue = {"7_0": "PENDING"}

    def timed(
        self, script: str, *arguments: str, expected: Collection[int] = (0,)
    ) -> tuple[float, str]:
        self.called.append(script)
        (runs,) = (Path(one[5:]) for one in arguments if one.startswith("runs="))
        printed = ""
        if script == "launch.py":
            assert set(expected) == {0, LEFT_OUT}
            printed = self._launch(runs)
        elif script == "cancel.py" and not self.stays:
            self.queue = {"7_0": "PENDING"}
        if script == self.fails:
            raise SystemExit(f"{script} failed")
        return 1.0 + len(self.called), printed

    def _launch(self, runs: Path) -> str:
        if self.array is None:
            return "Nothing submitted: your submit limit is reached.\n"
        planned = plan(runs, 2)
        (array,) = one_array(runs, planned, self.array)
        array = {**array, "comment": "here#0"} | ({} if self.recorded else {"job": None})
        write_sweep(runs, planned, cluster="slurm", arrays=[array])
        self.queue |= {f"{self.array}_{i}": "PENDING" for i in range(2)}
        return "plan\nsubmitted array 70: 2 of 2 jobs\n1 of 3 runs were left out.\n"

    def is_queued(self, name: str, comment: str) -> bool:
        return comment == "here#0" and any(job.startswith("70_") for job in self.queue)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return importlib.import_module("sweep_scale")


@pytest.fixture
def commands(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(script, "timed", commands.timed)
    monkeypatch.setattr(script, "read_queue", lambda names: commands.queue)
    monkeypatch.setattr(script, "is_queued", commands.is_queued)
    return commands


def test_submitted_jobs_are_cancelled(
    script: ModuleType, commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if some runs are blocked; jobs of the same runs in other folders stay."""
    found = script.submit_and_cancel(["tasks=toy-pointmass"])
    assert found == {"submit": 2.0, "status of queued jobs": 3.0}
    assert commands.called == ["launch.py", "status.py", "cancel.py"]
    assert commands.queue == {"7_0": "PENDING"}
    assert capsys.readouterr().out == "submitted array 70: 2 of 2 jobs\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["launch.py", "status.py"])
def test_jobs_are_cancelled_after_an_error(
    fails: str, script: ModuleType, commands: Commands, tmp_path: Path
) -> None:
    commands.fails = fails
    with pytest.raises(SystemExit, match=f"{fails} failed"):
        script.submit_and_cancel([])
    assert commands.called[-1] == "cancel.py"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("fails", ["cancel.py", ""])
def test_the_folder_of_jobs_that_may_be_left_is_kept(
    fails: str,
    recorded: bool,
    script: ModuleType,
    commands: Commands,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If cancelling fails, or succeeds without an effect; also if the ids are not recorded."""
    commands.fails, commands.stays, commands.recorded = fails, True, recorded
    with pytest.raises(SystemExit):
        script.submit_and_cancel([])
    (runs,) = tmp_path.iterdir()
    assert list(runs.glob("sweeps/*/0001/submission.json"))
    assert f"cancel.py runs={runs}`" in capsys.readouterr().err


def test_without_an_answer_of_slurm_the_folder_is_kept(
    script: ModuleType, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "read_queue", lambda names: None)
    with pytest.raises(SystemExit):
        script.submit_and_cancel([])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_launch_that_submits_nothing_is_not_timed(
    script: ModuleType, commands: Commands, tmp_path: Path
) -> None:
    commands.array = None
    with pytest.raises(SystemExit, match="submit limit is reached"):
        script.submit_and_cancel([])
    assert commands.called == ["launch.py"]
    assert not list(tmp_path.iterdir())


def test_only_expected_exit_codes_are_timed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return subprocess.CompletedProcess(command, 1, "a run failed\n", "why\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert script.timed("status.py", expected=(0, 1))[1] == "a run failed\n"
    with pytest.raises(SystemExit, match=r"exit code 1\na run failed\nwhy"):
        script.timed("launch.py", "suite=smoke")
