"""Training of several seeds as one batch: their loops run in lockstep, request by request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tdmpc2.common.interfaces import Accelerable
from tdmpc2.common.system.errors import StoppedError
from tdmpc2.common.training.loop_requests import Act, Learn, Request, Result, Steps


class BatchedAgents(Protocol):
    """Agents of several seeds that act and update as one batch."""

    def act(self, requests: Sequence[Act | None]) -> Sequence[np.ndarray]:
        """Return the actions of each agent; None stands for an agent whose loop has ended."""
        ...

    def update(self, replays: Sequence[Any | None]) -> Sequence[dict[str, Any]]:
        """Take one gradient step per agent (None: no step) and return the metrics of each."""
        ...

    def accelerable(self) -> Accelerable:
        """Declare what can be accelerated; see `Agent.accelerable`."""
        ...


class RoundClock:
    """A clock that only advances between rounds, so that all loops of a round see the same time.

    All loops then decide alike whether a checkpoint or a stop is due.
    """

    def __init__(self) -> None:
        self.tick()

    def __call__(self) -> float:
        """Return the time at the beginning of the round, in seconds."""
        return self._now

    def tick(self) -> None:
        """Begin a round."""
        self._now = time.monotonic()


def lockstep(
    loops: Sequence[Steps[Result] | None], batch: BatchedAgents, clock: RoundClock
) -> list[Result | None]:
    """Run several training loops to their ends, one request of each loop per round.

    In each round every loop yields one request. All requests of a round must be of the same kind;
    `batch` answers them together. A loop that ends early (after a divergence, say) keeps its place
    in the batch, so that the batch size, and with it the rounding of the other loops, does not
    change. If one loop raises an error, the others are stopped and the error is raised.

    Args:
        loops: one loop per place in the batch; None for a place without a loop.
        batch: agents that answer the requests.
        clock: clock of the loops; advanced at the beginning of each round.

    Returns:
        The return value of each loop; None for a place without a loop.

    Raises:
        RuntimeError: the loops yielded requests of different kinds in one round.
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
    """Stop the other loops after one has failed or stopped; they resume from their checkpoints."""
    for loop in loops:
        with contextlib.suppress(StoppedError):
            loop.throw(
                StoppedError(f"stopped together with another seed of this process ({reason})")
            )


def _respond(batch: BatchedAgents, requests: dict[int, Request], size: int) -> dict[int, Any]:
    """Answer the requests of one round."""
    kinds = {type(request) for request in requests.values()}
    if len(kinds) > 1:
        raise RuntimeError(f"seeds out of step: {sorted(kind.__name__ for kind in kinds)}")
    padded: list[Any] = [requests.get(place) for place in range(size)]
    if kinds == {Act}:
        answers: Sequence[Any] = batch.act(padded)
    elif kinds == {Learn}:
        answers = batch.update([request and request.replay for request in padded])
    else:
        return dict.fromkeys(requests)
    return {place: answers[place] for place in requests}
