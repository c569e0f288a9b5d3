"""Training loops in lockstep: batches, early ends, errors and stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tdmpc2.common.interfaces import Accelerable
from tdmpc2.common.system.errors import StoppedError
from tdmpc2.common.training.lockstep import RoundClock, lockstep
from tdmpc2.common.training.loop_requests import Act, Learn, Pause, Steps


class AddingBatch:
    """Returns each observation plus its place as the action, and records which places acted."""

    def __init__(self) -> None:
        self.asked: list[list[bool]] = []
        self.error: Exception | None = None

    def accelerable(self) -> Accelerable:
        raise AssertionError("nothing asks for it")

    def act(self, requests: Sequence[Act | None]) -> list[np.ndarray]:
        self.asked.append([request is not None for request in requests])
        if self.error is not None:
            raise self.error
        return [np.zeros(1) if r is None else r.obs + i for i, r in enumerate(requests)]

    def update(self, replays: Sequence[Any | None]) -> list[dict[str, Any]]:
        return [{"memory": replay} for replay in replays]


def act(value: float) -> Act:
    return Act(np.array([value]), np.array([True]), explore=True)


def loop(name: str, rounds: int, log: list[Any]) -> Steps[str]:
    """Request actions, updates and pauses; log the answers and how the loop ended."""
    try:
        for i in range(rounds):
            answer = yield act(10.0 * i)
            log.append((name, "act", float(answer[0])))
            answer = yield Learn(name)
            log.append((name, "learn", answer["memory"]))
            answer = yield Pause()
            log.append((name, "pause", answer))
    except StoppedError as error:
        log.append((name, "stopped", str(error)))
        raise
    return f"{name} done"


def test_each_loop_gets_its_own_answers() -> None:
    log: list[Any] = []
    assert lockstep([loop("a", 1, log), loop("b", 1, log)], AddingBatch(), RoundClock()) == [
        "a done",
        "b done",
    ]
    assert log == [
        ("a", "act", 0.0),
        ("b", "act", 1.0),
        ("a", "learn", "a"),
        ("b", "learn", "b"),
        ("a", "pause", None),
        ("b", "pause", None),
    ]


def test_whoever_ends_early_keeps_its_place() -> None:
    log: list[Any] = []
    batch = AddingBatch()
    loops = [loop("a", 1, log), None, loop("c", 3, log)]
    assert lockstep(loops, batch, RoundClock()) == ["a done", None, "c done"]
    assert batch.asked == [[True, False, True], [False, False, True], [False, False, True]]
    assert [entry for entry in log if entry[:2] == ("c", "act")][-1] == ("c", "act", 22.0)


def test_an_error_in_one_loop_stops_the_others() -> None:
    log: list[Any] = []

    def failing() -> Steps[str]:
        yield act(0.0)
        raise ValueError("simulator broke")

    with pytest.raises(ValueError, match="simulator broke"):
        lockstep([loop("a", 3, log), failing(), loop("c", 3, log)], AddingBatch(), RoundClock())
    stops = [entry for entry in log if entry[1] == "stopped"]
    assert [name for name, *_ in stops] == ["a", "c"]
    assert all("with another seed of this process (simulator broke)" in text for *_, text in stops)


def test_an_error_of_the_batch_reaches_the_loops() -> None:
    log: list[Any] = []
    batch = AddingBatch()
    batch.error = RuntimeError("out of memory")
    seen: list[BaseException] = []

    def noting() -> Steps[str]:
        try:
            yield act(0.0)
        except BaseException as error:
            seen.append(error)
            raise
        return ""

    with pytest.raises(RuntimeError, match="out of memory"):
        lockstep([noting(), loop("b", 1, log)], batch, RoundClock())
    assert seen == [batch.error]
    assert log[-1][:2] == ("b", "stopped")


def test_loops_out_of_step_are_a_fault() -> None:
    def learning() -> Steps[str]:
        yield Learn("memory")
        return ""

    with pytest.raises(RuntimeError, match="out of step: \\['Act', 'Learn'\\]"):
        lockstep([loop("a", 1, []), learning()], AddingBatch(), RoundClock())


def test_the_clock_stands_still_within_a_round() -> None:
    clock = RoundClock()
    times: list[tuple[str, float]] = []

    def looking(name: str) -> Steps[None]:
        for _ in range(3):
            times.append((name, clock()))
            yield Pause()

    lockstep([looking("a"), looking("b")], AddingBatch(), clock)
    a, b = ([t for name, t in times if name == n] for n in "ab")
    assert a == b
    assert a[0] < a[1] < a[2]
