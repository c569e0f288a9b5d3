"""Section `sync`: no step waits for the device.

On a GPU, CUDA reports every call that makes the host wait. On a CPU, operations are watched that
would wait on a GPU: those that read a value, or whose result's shape depends on values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_sections.bench import make_filled_agent, observation, set_up
from gpu_sections.report import Report, Settings
from tdmpc2.planner import plan
from tdmpc2.runners.registry import METHODS

WAITING = frozenset(
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense.default", "nonzero.default", "masked_select.default"),
        *("equal.default", "is_nonzero.default", "_unique2.default", "unique_dim.default"),
    )
)


# Of `torch.tensor` and of assigning a number by index: on a GPU a copy from unpinned memory.
LIFT = "aten.lift_fresh.default"


class WaitingOperationError(RuntimeError):
    """An operation that would make the host wait for a GPU."""


class Watch(TorchDispatchMode):
    """Raises at the first operation that would wait.

    Args:
        lifts: whether tensors made of numbers count; transfers through pinned memory make some too.
    """

    def __init__(self, *, lifts: bool) -> None:
        super().__init__()
        self.waiting = {*WAITING, LIFT} if lifts else WAITING

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at an operation and carries it out."""
        masked = str(func).startswith("aten.index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if str(func) in self.waiting or masked:
            raise WaitingOperationError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(settings: Settings, *, lifts: bool) -> Iterator[None]:
    """Inside, whatever waits for the device raises; see `Watch`."""
    if not settings.on_gpu:
        with Watch(lifts=lifts):
            yield
        return
    torch.cuda.synchronize(settings.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class OneBatch:
    """A replay buffer that always gives the same batch, which lies on the device."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def sample(self, *_: int) -> Any:
        """The batch."""
        return self.batch

    def update_priorities(self, *_: Any) -> None:
        """Priorities are kept on the host, which waits for them; only TD-MPC has some."""


def run(report: Report, settings: Settings) -> None:
    """Planning, sampling and updates."""
    set_up(settings)
    for method in METHODS:
        for compiled in (False, True) if settings.on_gpu else (False,):
            agent, replay = make_filled_agent(settings, method=method)
            if compiled:
                agent.compile()
            kind = f"{method}, {'compiled' if compiled else 'eager'}"
            size = (agent.config.batch_size, length_of(agent))
            one = OneBatch(replay.sample(*size))
            check(report, settings, f"{kind}: update", lambda a=agent, r=one: a.update(r))
            if method == "tdmpc2":
                check(report, settings, f"{kind}: plan", lambda a=agent: plan_on_device(a))
            if method == "tdmpc2" or settings.on_gpu:
                check(report, settings, f"{kind}: sample", lambda r=replay, s=size: r.sample(*s))


def length_of(agent: Any) -> int:
    """Transitions of each sub-trajectory that an agent samples."""
    return getattr(agent.config, "batch_length", None) or agent.replay_length


def check(report: Report, settings: Settings, name: str, call: Any) -> None:
    """Counts the first wait of a call as a failure."""
    for _ in range(3):  # compiled and warmed up
        call()
    message = ""
    try:
        with watched(settings, lifts=name.endswith("update")):
            call()
    except (RuntimeError, WaitingOperationError) as error:
        message = str(error).splitlines()[0]
    report.add(f"{name}: waits", float(bool(message)), at_most=0.0, note=message)


def plan_on_device(agent: Any) -> Any:
    """One planning call without the transfer of the action to the host, which has to wait."""
    device = agent.device
    with torch.no_grad():
        steps = {"preparation": agent._preparation, "iteration": agent._iteration}
        function = agent._plan if agent.compiler.enabled else plan
        result = function(
            agent.config,
            agent.model,
            torch.zeros(1, *observation().shape[1:], device=device),
            agent.model.context(None),
            agent.discount(None, 1),
            agent.warm_start(np.array([False]), True),
            agent.train_noise.plan(1, explore=True),
            min_std=agent.min_std(),
            **(steps if agent.compiler.enabled else {}),
        )
    agent.previous_mean[True] = result.mean
    return result
