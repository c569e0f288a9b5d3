"""Training sessions: the state in `status.json` after each kind of end, and signal handling."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.run import run_files as records_of_runs
from tdmpc2.common.run.lock import Lease, LeaseLostError
from tdmpc2.common.run.mirrors import Mirrors
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.run_files import RunFiles, read_status
from tdmpc2.common.run.sacred_tracker import Tracker
from tdmpc2.common.run.spec import RunOptions, RunSpec
from tdmpc2.common.system.errors import DivergedError, StoppedError, UserError
from tdmpc2.common.training import session as sessions
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.loop_requests import Steps, serve
from tdmpc2.common.training.session import SLURM_TERM_SECONDS, StopRequests, stop_on_signals


class ScriptedTrainer:
    """A training loop that runs a given function instead of training."""

    def __init__(self, script: Any) -> None:
        self.callbacks = Callbacks()
        self.step = 100
        self.script = script

    def steps(self) -> Steps[None]:
        self.script(self)
        return
        yield


class Metrics:
    """A replacement for Sacred's run that stores the logged scalars."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, float, int]] = []

    def log_scalar(self, name: str, value: float, step: int) -> None:
        self.logged.append((name, value, step))


def session(
    directory: Path, script: Any, metrics: Metrics | None = None, **options: Any
) -> RunResult:
    records = RunFiles(directory, RunSpec("tdmpc2", "toy-pointmass", 1, 200), {})
    with Lease(directory) as lease:
        trainer: Any = ScriptedTrainer(lambda trainer: script(trainer, lease))
        tracker = Tracker(metrics or Metrics())
        mirrors = Mirrors((), directory, records.spec.to_json())
        steps = sessions.session(
            trainer, records, tracker, lease, RunOptions(**options), StopRequests(), mirrors
        )
        return serve(steps, trainer)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """States that loggers get at the end."""
    found: list[str] = []
    monkeypatch.setattr(Mirrors, "close", lambda self, state: found.append(state))
    return found


def status(directory: Path) -> dict[str, Any]:
    known = read_status(directory)
    assert known is not None
    return known


def throw(error: BaseException) -> Any:
    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        raise error

    return script


def test_completed(ends: list[str], tmp_path: Path) -> None:
    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        assert status(tmp_path)["state"] == "RUNNING"
        trainer.step = 200

    record = session(tmp_path, script)
    assert record == RunResult(tmp_path, "COMPLETED", 200)
    assert (status(tmp_path)["state"], status(tmp_path)["env_step"]) == ("COMPLETED", 200)
    assert ends == ["COMPLETED"]


@pytest.mark.parametrize("bar", [True, False], ids=["bar", "no bar"])
def test_what_goes_on_shows_while_the_step_stands_still(
    bar: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(records_of_runs, "STATUS_SECONDS", 0)
    terminal = io.StringIO()
    monkeypatch.setattr(sessions.sys, "__stderr__", terminal)

    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        trainer.callbacks.on_doing("learning", 3, 500)
        assert status(tmp_path)["doing"] == "learning 3/500"
        trainer.callbacks.on_progress(200, {})
        assert "doing" not in status(tmp_path)
        trainer.step = 200

    session(tmp_path, script, progress=bar)
    _, shown, after = terminal.getvalue().partition("toy-pointmass seed 1, learning 3/500")
    assert bool(shown) == bar
    assert "learning" not in after


def test_every_decision_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An episode or an update may take minutes; the status is written all the same."""
    monkeypatch.setattr(records_of_runs, "STATUS_SECONDS", 0)

    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        trainer.step = 120
        assert not trainer.callbacks.stop_requested()
        assert status(tmp_path)["env_step"] == 120
        trainer.callbacks.on_doing("evaluating", 3, 500)
        trainer.callbacks.stop_requested()
        assert status(tmp_path)["doing"] == "evaluating 3/500"
        trainer.step = 121
        trainer.callbacks.stop_requested()
        assert "doing" not in status(tmp_path)

    session(tmp_path, script)


def test_diverged_is_an_outcome(ends: list[str], tmp_path: Path) -> None:
    record = session(tmp_path, throw(DivergedError("loss not finite")))
    assert record == RunResult(tmp_path, "DIVERGED", 100, "loss not finite")
    assert status(tmp_path)["message"] == "loss not finite"
    assert ends == ["DIVERGED"]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (StoppedError("stopped at env step 100"), "INTERRUPTED", "stopped at env step 100"),
        (KeyboardInterrupt(), "INTERRUPTED", ""),
        (UserError("disk full"), "FAILED", "disk full"),
        (ValueError("a bug"), "FAILED", "ValueError: a bug (test_session.py, line LINE)"),
        (SystemExit(3), "FAILED", "SystemExit: 3 (test_session.py, line LINE)"),
    ],
)
def test_errors_leave_a_state_and_go_on(
    error: BaseException, state: str, message: str, ends: list[str], tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        session(tmp_path, throw(error))
    told = re.sub(r"line \d+", "line LINE", status(tmp_path)["message"])
    assert (status(tmp_path)["state"], told) == (state, message)
    assert ends == [state]


def test_a_run_taken_over_is_left_to_its_new_owner(ends: list[str], tmp_path: Path) -> None:
    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        lease.lost = True
        trainer.callbacks.stop_requested()

    with pytest.raises(LeaseLostError):
        session(tmp_path, script)
    assert status(tmp_path)["state"] == "RUNNING"
    assert ends == ["RUNNING"]


def test_figures_reach_status_and_tracker(tmp_path: Path) -> None:
    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        figures = {"eval_return": 2.0, "eval_success": 0.5}
        trainer.callbacks.on_evaluation(100, figures, {"episode_return": 2.0})
        trainer.callbacks.on_progress(150, {"train_return": 7.0})

    metrics = Metrics()
    session(tmp_path, script, metrics)
    known = status(tmp_path)
    assert (known["eval_return"], known["eval_success"], known["train_return"]) == (2.0, 0.5, 7.0)
    assert ("episode_return", 2.0, 100) in metrics.logged


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_without_a_terminal_each_evaluation_is_a_line(
    progress: bool | None, shown: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def script(trainer: ScriptedTrainer, lease: Lease) -> None:
        trainer.callbacks.on_evaluation(100, {"eval_return": 2.0}, {})
        trainer.callbacks.on_progress(150, {"train_return": 7.0})

    session(tmp_path, script, progress=progress)
    captured = capfd.readouterr()
    line = "toy-pointmass seed 1: 100 of 200 env steps, eval=2\n"
    assert captured.out == (line if progress is None else "")
    assert ("toy-pointmass seed 1" in captured.err) is shown
    assert ("return=7" in captured.err) is shown


@pytest.mark.parametrize(
    ("number", "at_once", "soon"),
    [(signal.SIGINT, True, False), (signal.SIGTERM, True, False), (signal.SIGUSR2, False, True)],
)
def test_a_signal_is_a_request(
    number: signal.Signals, at_once: bool, soon: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        began = time.monotonic()
        assert (stop.at_once(), stop.soon(began), stop.signal) == (False, False, None)
        os.kill(os.getpid(), number)
        assert (stop.at_once(), stop.soon(time.monotonic())) == (at_once, soon)
        assert stop.signal == number
        assert not stop.soon(began)  # a round that began before the signal continues
    assert signal.getsignal(number) is before


def test_a_slurm_job_uses_the_time_that_sigterm_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stop = StopRequests()
    stop.receive(signal.SIGTERM)
    stop.receive(signal.SIGUSR2)
    assert (stop.at_once(), stop.soon(now), stop.signal) == (False, True, signal.SIGTERM)
    now += SLURM_TERM_SECONDS - 1
    stop.receive(signal.SIGTERM)  # a second signal does not extend the time
    assert not stop.at_once()
    now += 1
    assert stop.at_once()


def test_the_second_interrupt_acts_at_once() -> None:
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with stop_on_signals() as stop:
            seen.append((signal.getsignal(signal.SIGTERM) is before, stop.at_once()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
