"""Requests of the generator-based training loop: actions, gradient steps and pauses.

A training loop is a generator. Where it needs the agent, it yields a request (`Act`, `Learn` or
`Pause`) and receives the result as the value of the `yield` expression. The loop therefore does not
depend on how the agent is run: `serve` answers the requests of one loop with one agent, and
`lockstep` collects the requests of several loops (one per seed) and answers them as one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from tdmpc2.common.interfaces import Agent

Result = TypeVar("Result")


class Act(NamedTuple):
    """Request for actions `(B, A)`; the fields are the arguments of `Agent.act`.

    Attributes:
        obs: observations `(B, *obs_shape)`.
        first: `(B,)`, True where an episode begins.
        explore: whether to add exploration noise.
        task: task indices `(B,)` of a multi-task agent, else None.
    """

    obs: np.ndarray
    first: np.ndarray
    explore: bool
    task: np.ndarray | None = None


class Learn(NamedTuple):
    """Request for one gradient step; the answer is a dictionary of metrics.

    Attributes:
        replay: replay buffer to sample the batch from.
    """

    replay: Any


class Pause(NamedTuple):
    """Request without work; the answer is None.

    While environments compute in other processes, it lets other loops start their own.
    """


Request = Act | Learn | Pause
Steps = Generator[Request, Any, Result]


class Actor(Protocol):
    """An object that acts: an agent, or a policy for baseline scores."""

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`.

        Args:
            obs: observations `(B, *obs_shape)`.
            first: `(B,)`, True where an episode begins.
            explore: whether to add exploration noise.
            task: task indices `(B,)` of a multi-task agent, else None.
        """
        ...


def serve(steps: Steps[Result], agent: Agent | Actor) -> Result:
    """Run a loop to its end, answering its requests with one agent.

    An error of the agent is raised inside the loop at the `yield` of the request, so that the loop
    can clean up.

    Args:
        steps: the loop, e.g. `Trainer.steps()`.
        agent: agent or policy that answers the requests.

    Returns:
        The return value of the loop.
    """
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
