"""The launcher as a user runs it: starts, skips and resumes runs, reports, rejects bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.execution import local_pool
from sweeps.launch import main, usage
from sweeps.planning.options import SweepOptions
from sweeps.planning.request import SweepRequest
from tdmpc2.common.run.lock import Lease, live_holder
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.processes import interrupt_on_signals
from tests.runs import TINY

LAUNCH = [sys.executable, "-m", "sweeps.launch"]
SETTINGS = [f"{key}={value}" for key, value in TINY.items() if key != "task"]


def arguments(runs: Path, *more: str) -> list[str]:
    """A sweep of tiny runs on this machine."""
    return ["tasks=toy-pointmass", "cluster=local", f"runs={runs}", *SETTINGS, *more]


def states(runs: Path) -> dict[str, bytes]:
    """Read `eval.csv` of every run, by the name of its folder."""
    return {path.parent.name: path.read_bytes() for path in sorted(runs.rglob("eval.csv"))}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished sweep of two seeds, and what it printed."""
    runs = tmp_path_factory.mktemp("sweep")
    command = [*LAUNCH, *arguments(runs, "seeds=2", "max_parallel=2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs, done.stdout


def test_sweep_runs_every_seed_and_reports(swept: tuple[Path, str]) -> None:
    runs, printed = swept
    assert len(states(runs)) == 2
    assert "2 runs, 0 finished already, 2 to do" in printed
    assert printed.count("COMPLETED") == 2
    assert "reference + 3 sd" in printed
    assert (runs / "floors" / "toy-pointmass.json").exists()


def test_launching_again_skips_what_is_finished(
    swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, _ = swept
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    assert main(arguments(runs, "seeds=2")) == 0
    assert "2 finished already, 0 to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before


def test_a_run_that_cannot_go_on_fails_the_sweep_and_names_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An episode of 50 decisions does not fit a replay buffer of 10 rows. Only the run detects that.
    assert main(arguments(tmp_path, "seeds=1", "buffer_size=10")) == 1
    printed = capsys.readouterr().out
    assert "NOT STARTED" in printed
    (log,) = tmp_path.rglob("log.txt")
    assert f"exit code 2: {log}" in printed
    assert "one episode takes 51 rows" in log.read_text()


def test_a_run_that_cannot_start_does_not_stop_the_others(
    tmp_path: Path, swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log is a named pipe that nothing reads, or its run directory is a file."""
    names = sorted(states(swept[0]))
    folder = tmp_path / next(swept[0].rglob("seed1-*")).parent.relative_to(swept[0])
    folder.mkdir(parents=True)
    (folder / names[0]).mkdir()
    os.mkfifo(folder / names[0] / "log.txt")
    assert main(arguments(tmp_path, "seeds=2")) == 1
    printed = capsys.readouterr().out
    log = folder / names[0] / "log.txt"
    assert f"could not be started: {log}: a named pipe, not a file; correct it" in printed
    assert list(states(tmp_path)) == names[1:]
    log.unlink()
    log.parent.rmdir()
    log.parent.touch()
    assert main(arguments(tmp_path, "seeds=2")) == 1
    assert f"could not be started: {log.parent}: File exists" in capsys.readouterr().out
    log.parent.unlink()
    assert main(arguments(tmp_path, "seeds=2")) == 0
    assert states(tmp_path) == states(swept[0])


def test_of_two_launches_at_the_same_moment_one_trains_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other starts a process before the lease is taken; that is no failure of the run."""
    (directory,) = [run.directory for run in _request(tmp_path).planned]
    looks: list[Path] = []

    def late(path: Path) -> Any:
        looks.append(path)
        return None if len(looks) == 1 else live_holder(path)

    monkeypatch.setattr(local_pool, "live_holder", late)
    directory.mkdir(parents=True)
    with Lease(directory):
        monkeypatch.setattr("sweeps.tracking.run_states.live_holder", lambda path, now: None)
        assert main(arguments(tmp_path, "seeds=1")) == 1
    printed = capsys.readouterr().out
    assert "in use by process" in (directory / "log.txt").read_text()
    assert "1 run not finished: trained by other processes" in printed
    assert "exit code" not in printed


def test_what_another_launch_did_meanwhile_is_shown(tmp_path: Path) -> None:
    (run,) = _request(tmp_path).planned
    run.directory.mkdir(parents=True)
    with Lease(run.directory):
        RunFiles(run.directory, run.spec, {}).set_state("COMPLETED", run.spec.budget)
        files = [tmp_path / "none.json"]
        local_pool.run_all([[run]], files, max_parallel=1, threads=1, on_change=lambda _: None)
    assert run.status is not None
    assert (run.started, run.status["state"]) == (False, "COMPLETED")


def _request(runs: Path) -> SweepRequest:
    return SweepRequest.from_arguments(arguments(runs, "seeds=1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])  # SIGHUP: a closed terminal
def test_stopping_the_launcher_stops_its_runs_and_launching_again_finishes(
    tmp_path: Path, swept: tuple[Path, str], number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*LAUNCH, *arguments(tmp_path, "seeds=2")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if ": running" in line:
            break
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 130
    for lease in tmp_path.rglob("lease.json"):  # no process is left running
        assert not psutil.pid_exists(json.loads(lease.read_text())["pid"])
    assert main(arguments(tmp_path, "seeds=2")) == 0
    assert states(tmp_path) == states(swept[0])


def test_with_nohup_a_launcher_outlives_its_terminal() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        interrupt_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        interrupt_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite=smok"], "did you mean 'smoke'?"),
        (["tasks=walker-wolk"], "did you mean 'walker-walk'?"),
        (["suite=smoke", "methods=tdmpc3"], "unknown method 'tdmpc3'"),
        (["suite=smoke", "sedes=2"], "did you mean 'seeds'?"),
        (["suite=smoke", "seeds=two"], "seeds=two"),
        (["suite=smoke", "num_q=0"], "num_q=0"),
        (["seeds=2"], "suite= or tasks= is needed"),
        (
            ["suite=smoke", "tasks=walker-run"],
            "walker-run is not a task of smoke",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch.py", f"runs={tmp_path / 'runs'}", *arguments])
    assert cli.command(main, usage) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not (tmp_path / "runs").exists()


def test_dry_run_lists_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "runs", "seeds=2", "dry_run=true")) == 0
    assert capsys.readouterr().out.count("toy-pointmass seed") == 2
    assert not (tmp_path / "runs").exists()


def test_script_works_from_another_directory(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "sweeps" / "launch.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0
    assert "suite=SUITE" in done.stdout


def test_several_seeds_in_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each seed has its own records; a launch with one process per seed skips finished seeds."""
    assert main(arguments(tmp_path, "seeds=3", "seeds_per_process=2", "max_parallel=2")) == 0
    printed = capsys.readouterr().out
    assert "3 to do in 2 processes" in printed
    assert printed.count("COMPLETED") == 3
    places = [read_json(path).get("seed_batch") for path in sorted(tmp_path.rglob("numeric.json"))]
    assert places == ["1 of 2", "2 of 2", None]
    assert main(arguments(tmp_path, "seeds=3")) == 0
    assert "3 finished already, 0 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "methods"),
    [
        (["seeds=2"], ["tdmpc2"] * 4 + ["sac", "tdmpc", "dreamerv3"]),
        (["seeds=1", "methods=tdmpc2"], ["tdmpc2"] * 2),
        (["seeds=1", "methods=sac", "hidden_dim=8"], ["sac"] * 2),
    ],
)
def test_a_suite_brings_companions_unless_methods_are_named(
    arguments: list[str], methods: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["suite=smoke", "cluster=local", "dry_run=true", f"runs={tmp_path / 'runs'}"]
    assert main([*here, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if " seed " in line]
    assert listed == methods


@pytest.mark.parametrize(
    ("task", "methods"),
    [
        ("walker-walk", ["tdmpc2"]),
        ("cartpole-swingup", ["tdmpc2", "sac", "tdmpc", "dreamerv3"]),
    ],
)
def test_some_tasks_of_a_suite_have_its_settings(task: str, methods: list[str]) -> None:
    """Companions come along if their task is among them."""
    planned = SweepRequest(SweepOptions(suite="smoke", tasks=task, seeds="1")).planned
    assert [(run.spec.method, run.spec.task) for run in planned] == [(m, task) for m in methods]
    whole = SweepRequest(SweepOptions(suite="smoke", seeds="1")).planned
    assert {run.spec for run in planned} < {run.spec for run in whole}


def test_one_machine_that_needs_less_than_a_week_is_said_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three runs of about 14 hours on a core."""
    here = ["tasks=walker-walk", "env_steps=100000", "cluster=local", f"runs={tmp_path / 'runs'}"]
    assert main([*here, "max_parallel=1", "dry_run=true"]) == 0
    said = re.search(r"more machines: about (.+) on 1 core, or about (.+) on 1 GPU\.",
                     capsys.readouterr().out)  # fmt: skip
    assert said is not None
    core, gpu = said.groups()
    assert 24 < float(core.removesuffix(" h")) < 72
    assert 5 < float(gpu.removesuffix(" min")) < 60
