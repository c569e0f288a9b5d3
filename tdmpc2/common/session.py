"""One session of training: progress bar, signals, and the state a run is left in."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

from tdmpc2.common.errors import DivergedError, StoppedError
from tdmpc2.common.evaluate import Evaluation
from tdmpc2.common.lease import Lease, LeaseLostError
from tdmpc2.common.records import RunRecords, State
from tdmpc2.common.requests import Steps
from tdmpc2.common.run_directory import RunRecord
from tdmpc2.common.spec import RunOptions
from tdmpc2.common.tracker import Tracker
from tdmpc2.common.trainer import Callbacks, Trainer


def session(
    trainer: Trainer,
    records: RunRecords,
    tracker: Tracker,
    lease: Lease,
    options: RunOptions,
    stop_requested: Callable[[], bool],
) -> Steps[RunRecord]:
    """The steps of a trainer with a progress bar, and with the states they leave the run in.

    Args:
        trainer: of the run.
        records: its files.
        tracker: of this attempt.
        lease: on the run directory.
        options: how to carry it out.
        stop_requested: whether the run is asked to stop.
    """
    show = sys.__stderr__ is not None and sys.__stderr__.isatty()
    if options.progress is not None:
        show = options.progress
    name = f"{records.spec.task} seed {records.spec.seed}"
    bar = tqdm(
        total=trainer.schedule.env_steps,
        initial=trainer.env_step,
        disable=not show,
        file=sys.__stderr__,  # past Sacred, which would keep every redraw
        unit=" env steps",
        desc=name,
    )
    figures: dict[str, float] = {}

    def must_stop() -> bool:
        lease.check()
        return stop_requested()

    def on_progress(env_step: int, new: dict[str, float]) -> None:
        figures.update(new)
        records.set_progress(env_step, **figures)
        bar.set_postfix(
            {"return": f"{new['train_return']:.0f}", "eval": f"{figures.get('eval_return', 0):.0f}"}
        )
        bar.update(env_step - bar.n)

    def on_evaluating(done: int, most: int) -> None:
        bar.set_description(f"{name}, evaluating {done}/{most}")
        records.set_progress(trainer.env_step, **figures, evaluating=f"{done}/{most}")

    def on_evaluation(env_step: int, result: Evaluation) -> None:
        bar.set_description(name)
        figures["eval_return"] = result.mean_return
        figures["eval_success"] = float(result.successes.mean())
        tracker.log(env_step, result.row())

    records.set_state("RUNNING", trainer.env_step)
    with bar:
        trainer.callbacks = Callbacks(must_stop, on_progress, on_evaluating, on_evaluation)
        try:
            yield from trainer.steps()
            state: State = "COMPLETED"
            message = ""
        except DivergedError as error:
            state, message = "DIVERGED", str(error)
        except (StoppedError, KeyboardInterrupt) as error:
            records.set_state("INTERRUPTED", trainer.env_step, str(error), **figures)
            raise
        except LeaseLostError:  # the records are another process's now
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                text = f"{type(error).__name__}: {error}"
                records.set_state("FAILED", trainer.env_step, text, **figures)
            raise
    records.set_state(state, trainer.env_step, message, **figures)
    return RunRecord(records.directory, state, trainer.env_step, message)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT, SIGTERM or SIGUSR2 into a request; a second one acts at once."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    try:
        old = {s: signal.signal(s, handle) for s in signals}
    except ValueError:  # not the main thread: whoever owns it decides
        old = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
