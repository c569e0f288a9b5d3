"""A training session: signals, progress bar, and the final state in `status.json`.

What happens to a run when its process receives a signal:

- **SIGINT (Ctrl-C) and SIGTERM** stop it before the next decision or update, without a checkpoint.
- **SIGUSR2**, which clusters send before they preempt a job, lets the current episode end,
  saves a checkpoint and stops. An evaluation is interrupted and repeated on resume. A run that
  trains from a dataset saves and stops before its next update, or in an evaluation, of which it
  keeps the finished rounds.
- **SIGTERM in a SLURM job** acts like SIGUSR2, but stops the run without a checkpoint if that takes
  longer than 20 s, since SLURM kills the job 30 s after SIGTERM. So does SIGTERM at a time limit,
  after SIGUSR2.
- **SIGINT after any earlier signal** raises `KeyboardInterrupt` immediately.
- **SIGKILL** cannot be handled: `status.json` keeps the state RUNNING. The next process takes over
  the lease of the run directory (see `tdmpc2.common.run.lock`).

A stopped run has the state INTERRUPTED and its command exits with code 130. In all cases the same
command resumes the run from its last checkpoint and redoes the work since then, bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tqdm import tqdm

from tdmpc2.common.run.lock import Lease, LeaseLostError
from tdmpc2.common.run.mirrors import Mirrors
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.sacred_tracker import Tracker
from tdmpc2.common.run.schemas import State
from tdmpc2.common.run.spec import CommonOptions
from tdmpc2.common.system.errors import DivergedError, StoppedError, UserError
from tdmpc2.common.system.user_code import described
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.loop_requests import Steps

# SLURM sends SIGKILL 30 s after SIGTERM, unless its option KillWait is changed.
SLURM_TERM_SECONDS = 20.0
REDRAW_SECONDS = 0.1

# Metrics in the progress bar: label, name and format.
SHOWN = (
    ("return", "train_return", ".0f"),
    ("eval", "eval_return", ".0f"),
    ("loss", "total_loss", ".3g"),
    ("score", "eval_score", ".1f"),
)


class Loop(Protocol):
    """A training loop: that of the online trainer or of the offline trainer.

    Attributes:
        callbacks: functions that the loop calls; the session sets them.
    """

    callbacks: Callbacks

    @property
    def step(self) -> int:
        """Progress in the unit of the budget."""
        ...

    def steps(self) -> Steps[None]:
        """Train to the end of the budget; a generator of requests (see `loop_requests`)."""
        ...


def session(
    trainer: Loop,
    records: RunFiles,
    tracker: Tracker,
    lease: Lease,
    options: CommonOptions,
    stop: StopRequests,
    mirrors: Mirrors,
) -> Steps[RunResult]:
    """Run a training loop, show its progress, and write the state of the run at the end.

    Progress is a bar in a terminal, else one line per evaluation.

    The states are COMPLETED, DIVERGED (NaN or Inf), INTERRUPTED (stopped by a signal) and FAILED
    (any other error). Errors other than a divergence are raised again.

    Args:
        trainer: training loop.
        records: files of the run.
        tracker: Sacred's record of this attempt.
        lease: lease on the run directory; training stops if it is lost.
        options: options of the run.
        stop: stop requests from signals.
        mirrors: loggers that follow the records; closed at the end.

    Returns:
        The result of the run. The function is a generator of the loop's requests.
    """
    show = sys.__stderr__ is not None and sys.__stderr__.isatty()
    if options.progress is not None:
        show = options.progress
    unit = records.spec.budget_unit.replace("num_", "").replace("_", " ")
    name = f"{records.spec.task} seed {records.spec.seed}"
    bar = tqdm(
        total=records.spec.budget,
        initial=trainer.step,
        disable=not show,
        file=sys.__stderr__,  # not sys.stderr, where Sacred would record every redraw
        unit=f" {unit}",
        desc=name,
    )
    figures: dict[str, float] = {}
    redrawn = -math.inf
    work: tuple[int, str] = (-1, "")  # the step at which long work is done, and its name

    def must_stop() -> bool:
        lease.check()
        doing = {"doing": work[1]} if trainer.step == work[0] else {}
        records.set_progress(trainer.step, **figures, **doing)  # shows that nothing hangs
        return stop.at_once()

    def on_progress(step: int, new: Mapping[str, float]) -> None:
        figures.update(new)
        records.set_progress(step, **figures)
        bar.set_description(name, refresh=False)
        bar.update(step - bar.n)
        bar.set_postfix_str(", ".join(_shown(figures)), refresh=False)
        mirrors.update()

    def on_doing(what: str, done: int, most: int) -> None:
        nonlocal redrawn, work
        doing = f"{what} {done}/{most}"
        work = trainer.step, doing
        records.set_progress(trainer.step, **figures, doing=doing)
        if time.monotonic() - redrawn >= REDRAW_SECONDS:
            redrawn = time.monotonic()
            bar.set_description(f"{name}, {doing}")

    def on_evaluation(step: int, new: Mapping[str, float], row: Mapping[str, Any]) -> None:
        bar.set_description(name)
        figures.update(new)
        tracker.log(step, row)
        mirrors.update()
        if not show and options.progress is None:
            place = f"{step:,} of {records.spec.budget:,} {unit}"
            print(f"{name}: {place}, {', '.join(_shown(new))}", flush=True)

    records.set_state("RUNNING", trainer.step)
    state: State = "RUNNING"
    message = ""
    with bar:
        shown = (on_progress, on_doing, on_evaluation)
        trainer.callbacks = Callbacks(must_stop, stop.soon, *shown)
        try:
            yield from trainer.steps()
            state = "COMPLETED"
        except DivergedError as error:
            state, message = "DIVERGED", str(error)
        except (StoppedError, KeyboardInterrupt) as error:
            if isinstance(error, StoppedError):
                error.signal = stop.signal
            state = "INTERRUPTED"
            with contextlib.suppress(OSError):  # a full disk must not hide that it was stopped
                records.set_state(state, trainer.step, str(error), **figures)
            raise
        except LeaseLostError:  # status.json now belongs to another process
            raise
        except BaseException as error:
            state = "FAILED"
            with contextlib.suppress(OSError):  # a full disk must not hide the original error
                text = str(error) if isinstance(error, UserError) else described(error)
                records.set_state(state, trainer.step, text, **figures)
            raise
        finally:
            mirrors.close(state)
    records.set_state(state, trainer.step, message, **figures)
    return RunResult(records.directory, state, trainer.step, message)


def _shown(figures: Mapping[str, float]) -> list[str]:
    """Return the metrics to show, e.g. `return=7`."""
    return [f"{label}={figures[key]:{how}}" for label, key, how in SHOWN if key in figures]


class StopRequests:
    """Stop requests from signals; the module docstring describes the effect of each signal.

    Attributes:
        signal: number of the first signal received; None before that.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._soon = self._at_once = math.inf

    def receive(self, number: int) -> None:
        """Record a signal.

        Raises:
            KeyboardInterrupt: the signal is SIGINT and another signal was received before.
        """
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        now = time.monotonic()
        if number == signal.SIGUSR2:
            self._soon = min(self._soon, now)
        elif number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            self._soon = min(self._soon, now)
            self._at_once = min(self._at_once, now + SLURM_TERM_SECONDS)
        else:
            self._at_once = now
        self.signal = self.signal or number

    def at_once(self) -> bool:
        """Return whether to stop at once, without a checkpoint."""
        return time.monotonic() >= self._at_once

    def soon(self, now: float) -> bool:
        """Return whether to save a checkpoint and stop at the next point where this is possible.

        Args:
            now: `time.monotonic()`, or the beginning of the round (see `RoundClock`).
        """
        return now >= self._soon


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequests]:
    """Handle SIGINT, SIGTERM and SIGUSR2 as stop requests inside the `with` block.

    Outside the main thread no handlers are installed, since Python does not allow it.
    """
    stop = StopRequests()

    def handle(number: int, frame: object) -> None:
        stop.receive(number)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    try:
        old = {s: signal.signal(s, handle) for s in signals}
    except ValueError:  # not the main thread
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
