"""Launch multi-task runs: start, skip and resume them, and show their state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps import retry, status
from sweeps.execution import launching
from sweeps.launch import main
from sweeps.planning.request import SweepRequest
from tdmpc2.common.run.run_files import read_status
from tests.sweeps.datasets import arguments, toy_dataset

LAUNCH = [sys.executable, "-m", "sweeps.launch"]
PATIENCE = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy")


def launch(data: Path, runs: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    command = [*LAUNCH, *arguments(data, runs, **{"cluster": "local", "seeds": "1", **changes})]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def records(runs: Path) -> dict[str, bytes]:
    """Read the records of each run, by seed and file."""
    return {
        f"{path.parent.name.partition('-')[0]} {path.name}": path.read_bytes()
        for name in ("eval", "train")
        for path in runs.rglob(f"{name}.csv")
    }


@pytest.fixture(scope="module")
def swept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished sweep of two seeds, and what it printed."""
    runs = tmp_path_factory.mktemp("sweep")
    done = launch(data, runs, seeds="2", max_parallel=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs, done.stdout


def test_every_seed_runs_and_is_reported(swept: tuple[Path, str]) -> None:
    runs, printed = swept
    assert sorted(records(runs)) == [f"seed{s} {n}.csv" for s in (1, 2) for n in ("eval", "train")]
    assert "2 runs, 0 finished already, 2 to do" in printed
    assert "2 tasks: 6 episodes, 72 transitions in" in printed
    assert "by counted operations" in printed
    assert "45 of 45 updates" in printed
    assert printed.count("COMPLETED") == 2
    assert "mean over the tasks" in printed
    assert "reference_scores" not in printed
    assert not (runs / "floors").exists()


def test_launching_again_skips_what_is_finished(
    data: Path, swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, _ = swept
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    assert main(arguments(data, runs, cluster="local", seeds=2)) == 0
    assert "2 finished already, 0 to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before


def test_more_is_taken_to_cost_what_earlier_runs_took(
    data: Path, swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The launch adds a third seed, and raises the budget of the other two."""
    changes = {"cluster": "local", "seeds": 3, "num_updates": 60, "dry_run": "true"}
    assert main(arguments(data, swept[0], **changes)) == 0
    printed = capsys.readouterr().out
    assert "3 runs, 0 finished already, 3 to do" in printed
    assert "by the speed of earlier runs here (" in printed


def test_status_counts_updates(swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([f"runs={swept[0]}", "list=true", "suite=tasks"]) == 0
    printed = capsys.readouterr().out
    assert "updates/s" in printed
    assert "env steps" not in printed
    assert "2 tasks smoke" in printed
    assert printed.count("45 of 45 updates") == 2
    assert "100.0 %" in printed


def test_one_gpu_trains_one_agent_at_a_time(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sweeps.execution.launching.choose_device", torch.device)
    what = [f"data={data}", f"runs={tmp_path}", "suite=scaling", "cluster=local", "device=cuda"]
    assert main([*what, "dry_run=true", "seeds=1", "methods=tdmpc2"]) == 0
    printed = capsys.readouterr().out
    assert "5 runs, 0 finished already, 5 to do, 1 at a time" in printed
    days = sum((3.7, 4.2, 5.3, 12.0, 33.0))
    assert f"about {days:,.0f} days on one GPU" in printed
    assert "by the paper's Table 1 (TD-MPC2, 80 tasks, an RTX 3090" in printed


def hit(data: Path, runs: Path, number: int) -> int:
    """Send a signal to the only run of a launch after its first checkpoint with an update.

    Returns:
        The exit code of the launch.
    """
    command = [*LAUNCH, *arguments(data, runs, cluster="local", seeds=1)]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not (saved := list(runs.glob("*/*/*/seed*/checkpoints/0*[1-9]*"))):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    lease = json.loads((saved[0].parents[1] / "lease.json").read_text())
    os.kill(lease["pid"], number)
    return launcher.wait()


def test_killed_and_launched_again(
    data: Path,
    tmp_path: Path,
    swept: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert hit(data, tmp_path, signal.SIGKILL) == 1
    assert status.main([f"runs={tmp_path}", "list=true"]) == 1
    printed = capsys.readouterr().out
    assert "stale" in printed
    assert "of 45 updates" in printed
    assert main(arguments(data, tmp_path, cluster="local", seeds=1)) == 0
    whole = records(swept[0])
    assert records(tmp_path) == {name: text for name, text in whole.items() if "seed1" in name}


def test_stopped_and_launched_again(data: Path, tmp_path: Path, swept: tuple[Path, str]) -> None:
    assert hit(data, tmp_path, signal.SIGUSR2) == 1
    (directory,) = (path.parent for path in tmp_path.rglob("status.json"))
    stopped = read_status(directory)
    assert stopped is not None
    assert stopped["state"] == "INTERRUPTED"
    assert 0 < stopped["num_updates"] < 45
    assert launch(data, tmp_path, cluster="inline").returncode == 0
    whole = records(swept[0])
    assert records(tmp_path) == {name: text for name, text in whole.items() if "seed1" in name}


def test_a_failed_run_is_retried_with_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run fails because its horizon is longer than the episodes, which only it can detect."""
    data, runs = toy_dataset(tmp_path / "data"), tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert main(arguments(Path("data"), runs, cluster="local", seeds=1, horizon=20)) == 1
    printed = capsys.readouterr().out
    assert "NOT STARTED" in printed
    (log,) = runs.rglob("log.txt")
    assert f"exit code 2: {log}" in printed
    assert "has 20 or more transitions" in log.read_text()
    monkeypatch.chdir("/")
    retried: list[SweepRequest] = []
    monkeypatch.setattr(launching, "launch", lambda request: retried.append(request) or 0)
    assert retry.main([f"runs={runs}"]) == 0
    assert "1 failed" in capsys.readouterr().out
    assert retried[0].sweep.data == str(data)
    assert retried[0].sweep.only == "failed"
    assert retried[0].settings["horizon"] == 20
