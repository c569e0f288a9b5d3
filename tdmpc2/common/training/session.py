"""One session of training: progress bar, signals, and the state a run is left in."""

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
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.run_files import RunFiles, State
from tdmpc2.common.run.sacred_tracker import Tracker
from tdmpc2.common.run.spec import CommonOptions
from tdmpc2.common.system.errors import DivergedError, StoppedError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.loop_requests import Steps

# SLURM kills 30 s after SIGTERM (KillWait), unless it is set up otherwise.
SLURM_TERM_SECONDS = 20.0
REDRAW_SECONDS = 0.1

# Figures that the progress bar shows: label, name and format.
SHOWN = (
    ("return", "train_return", ".0f"),
    ("eval", "eval_return", ".0f"),
    ("loss", "total_loss", ".3g"),
    ("score", "eval_score", ".1f"),
)


class Loop(Protocol):
    """A training loop: the trainer's, or that of learning from a dataset.

    Attributes:
        callbacks: to whoever runs it.
    """

    callbacks: Callbacks

    @property
    def step(self) -> int:
        """Where it stands, in the unit of its budget."""
        ...

    def steps(self) -> Steps[None]:
        """Goes on to the end of the budget."""
        ...


def session(
    trainer: Loop,
    records: RunFiles,
    tracker: Tracker,
    lease: Lease,
    options: CommonOptions,
    stop: StopRequests,
) -> Steps[RunResult]:
    """The steps of a trainer with a progress bar, and with the states they leave the run in.

    Args:
        trainer: of the run.
        records: its files.
        tracker: of this attempt.
        lease: on the run directory.
        options: how to carry it out.
        stop: whether the run is asked to stop.
    """
    show = sys.__stderr__ is not None and sys.__stderr__.isatty()
    if options.progress is not None:
        show = options.progress
    name = f"{records.spec.task} seed {records.spec.seed}"
    bar = tqdm(
        total=records.spec.budget,
        initial=trainer.step,
        disable=not show,
        file=sys.__stderr__,  # past Sacred, which would keep every redraw
        unit=" " + records.spec.budget_unit.replace("num_", "").replace("_", " "),
        desc=name,
    )
    figures: dict[str, float] = {}
    redrawn = -math.inf

    def must_stop() -> bool:
        lease.check()
        return stop.at_once()

    def on_progress(step: int, new: Mapping[str, float]) -> None:
        figures.update(new)
        records.set_progress(step, **figures)
        bar.set_description(name, refresh=False)
        bar.update(step - bar.n)
        bar.set_postfix(
            {label: format(figures[key], how) for label, key, how in SHOWN if key in figures}
        )

    def on_doing(what: str, done: int, most: int) -> None:
        nonlocal redrawn
        doing = f"{what} {done}/{most}"
        records.set_progress(trainer.step, **figures, doing=doing)
        if time.monotonic() - redrawn >= REDRAW_SECONDS:
            redrawn = time.monotonic()
            bar.set_description(f"{name}, {doing}")

    def on_evaluation(step: int, new: Mapping[str, float], row: Mapping[str, Any]) -> None:
        bar.set_description(name)
        figures.update(new)
        tracker.log(step, row)

    records.set_state("RUNNING", trainer.step)
    with bar:
        shown = (on_progress, on_doing, on_evaluation)
        trainer.callbacks = Callbacks(must_stop, stop.soon, *shown)
        try:
            yield from trainer.steps()
            state: State = "COMPLETED"
            message = ""
        except DivergedError as error:
            state, message = "DIVERGED", str(error)
        except (StoppedError, KeyboardInterrupt) as error:
            if isinstance(error, StoppedError):
                error.signal = stop.signal
            records.set_state("INTERRUPTED", trainer.step, str(error), **figures)
            raise
        except LeaseLostError:  # the records are another process's now
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                text = f"{type(error).__name__}: {error}"
                records.set_state("FAILED", trainer.step, text, **figures)
            raise
    records.set_state(state, trainer.step, message, **figures)
    return RunResult(records.directory, state, trainer.step, message)


class StopRequests:
    """Signals that ask a run to stop, and when it must.

    SIGINT and SIGTERM mean at once, from the last checkpoint nothing is lost. SIGUSR2 is how a
    cluster announces that it will take the machine back: the run ends its episode, saves and
    stops. A SLURM job also gets SIGTERM some time before it is killed, and uses that time.

    Attributes:
        signal: the first that came; None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._soon = self._at_once = math.inf

    def receive(self, number: int) -> None:
        """Takes note of a signal.

        Raises:
            KeyboardInterrupt: SIGINT, and something was asked before: this time it is urgent.
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
        """Whether to stop without saving anything."""
        return time.monotonic() >= self._at_once

    def soon(self, now: float) -> bool:
        """Whether to save and stop where that is possible.

        Args:
            now: `time.monotonic()`, or when the round began (see `RoundClock`).
        """
        return now >= self._soon


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequests]:
    """Turns SIGINT, SIGTERM and SIGUSR2 into requests; a second SIGINT acts at once."""
    stop = StopRequests()

    def handle(number: int, frame: object) -> None:
        stop.receive(number)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    try:
        old = {s: signal.signal(s, handle) for s in signals}
    except ValueError:  # not the main thread: whoever owns it decides
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
