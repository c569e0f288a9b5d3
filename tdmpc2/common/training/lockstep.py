"""Several training loops in step with each other, their requests answered as one batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tdmpc2.common.system.errors import StoppedError
from tdmpc2.common.training.loop_requests import Act, Learn, Request, Result, Steps


class BatchedAgents(Protocol):
    """Agents of several seeds that act and learn as one batch."""

    def act(self, requests: Sequence[Act | None]) -> Sequence[np.ndarray]:
        """Actions for each agent; None stands for one whose loop has ended."""
        ...

    def update(self, replays: Sequence[Any | None]) -> Sequence[dict[str, Any]]:
        """One gradient step of each agent, likewise; their metrics."""
        ...

    def compile(self, on_failure: Callable[[], None] | None = None) -> None:
        """See `Agent.compile`."""
        ...


class RoundClock:
    """A clock that stands still within a round, so that all loops of it see the same time."""

    def __init__(self) -> None:
        self.tick()

    def __call__(self) -> float:
        """Seconds at the beginning of the round."""
        return self._now

    def tick(self) -> None:
        """Begins a round."""
        self._now = time.monotonic()


def lockstep(
    loops: Sequence[Steps[Result] | None], batch: BatchedAgents, clock: RoundClock
) -> list[Result | None]:
    """Runs loops to their ends, round by round.

    A loop that ends before the others (diverged, say) keeps its place in the batch, so that the
    others keep their rounding. An error in one loop stops all.

    Args:
        loops: one for each place in the batch; None for a place without.
        batch: answers.
        clock: of the loops.

    Returns:
        What each loop returned.
    """
    results: list[Result | None] = [None] * len(loops)
    running = {place: loop for place, loop in enumerate(loops) if loop is not None}
    answers: dict[int, Any] = dict.fromkeys(running)
    error: BaseException | None = None
    with contextlib.ExitStack() as stack:
        for loop in running.values():
            stack.enter_context(contextlib.closing(loop))
        while running:
            clock.tick()
            requests: dict[int, Request] = {}
            for place, loop in list(running.items()):
                try:
                    requests[place] = (
                        loop.send(answers[place]) if error is None else loop.throw(error)
                    )
                except StopIteration as end:
                    results[place] = end.value
                    del running[place]
                except BaseException as failure:
                    del running[place]
                    _stop(running.values(), failure)
                    raise
            answers, error = {}, None
            if requests:
                try:
                    answers = _respond(batch, requests, len(loops))
                except BaseException as raised:
                    error = raised
    return results


def _stop(loops: Iterable[Steps[Any]], reason: BaseException) -> None:
    """Ends loops because another one failed or was stopped; they go on from where they saved."""
    for loop in loops:
        with contextlib.suppress(StoppedError):
            loop.throw(StoppedError(f"stopped with another seed of its process ({reason})"))


def _respond(batch: BatchedAgents, requests: dict[int, Request], size: int) -> dict[int, Any]:
    """Answers of one round."""
    kinds = {type(request) for request in requests.values()}
    if len(kinds) > 1:
        raise RuntimeError(f"seeds out of step: {sorted(kind.__name__ for kind in kinds)}")
    every: list[Any] = [requests.get(place) for place in range(size)]
    if kinds == {Act}:
        answers: Sequence[Any] = batch.act(every)
    elif kinds == {Learn}:
        answers = batch.update([request and request.replay for request in every])
    else:
        return dict.fromkeys(requests)
    return {place: answers[place] for place in requests}
