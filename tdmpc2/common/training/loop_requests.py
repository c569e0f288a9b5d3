"""What a training loop asks of whoever runs it, so that several loops can be answered at once.

A loop is a generator of requests; each is sent its answer. `serve` answers with one agent;
`lockstep` asks many loops first and answers all of them with one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from tdmpc2.common.interfaces import Agent

Result = TypeVar("Result")


class Act(NamedTuple):
    """Asks for actions `(B, A)`; see `Agent.act`."""

    obs: np.ndarray
    first: np.ndarray
    explore: bool
    task: np.ndarray | None = None


class Learn(NamedTuple):
    """Asks for one gradient step on a batch from this memory; answered with metrics."""

    replay: Any


class Pause(NamedTuple):
    """Asks for nothing: environments work in other processes, so others may start theirs."""


Request = Act | Learn | Pause
Steps = Generator[Request, Any, Result]


class Actor(Protocol):
    """Whatever can act: an agent, or a policy that reference scores are measured with."""

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)`; see `Agent.act`."""
        ...


def serve(steps: Steps[Result], agent: Agent | Actor) -> Result:
    """Runs a loop to its end; an agent that fails does so at the request that it was asked."""
    answer, error = None, None
    with contextlib.closing(steps):
        while True:
            try:
                request = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            answer, error = None, None
            try:
                answer = _respond(agent, request)
            except BaseException as raised:
                error = raised


def _respond(agent: Any, request: Request) -> Any:
    if isinstance(request, Act):
        obs, first, explore, task = request
        return agent.act(obs, first=first, explore=explore, task=task)
    return agent.update(request.replay) if isinstance(request, Learn) else None
