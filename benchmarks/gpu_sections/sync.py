"""Section `sync`: no step but that of new priorities synchronizes the host with the device.

On a GPU, CUDA reports every call that makes the host wait. On a CPU, operations that would wait on
a GPU are detected: those that read a value, or whose result has a shape that depends on values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from meters import WARM_UP
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_sections.bench import make_filled_agent, observation, set_up
from gpu_sections.report import Report, Settings
from tdmpc2 import acceleration
from tdmpc2.runners.registry import METHODS

WAITING = frozenset(
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense.default", "nonzero.default", "masked_select.default"),
        *("equal.default", "is_nonzero.default", "_unique2.default", "unique_dim.default"),
    )
)

# Called by `torch.tensor` and by assigning a number to an index: on a GPU, a copy from unpinned
# memory.
LIFT = "aten.lift_fresh.default"


class WaitingOperationError(RuntimeError):
    """An operation that would make the host wait for a GPU."""


class Watch(TorchDispatchMode):
    """Dispatch mode that raises at the first operation that would wait.

    Args:
        lifts: whether to count tensors made from numbers; transfers through pinned memory also
            make some.
    """

    def __init__(self, *, lifts: bool) -> None:
        super().__init__()
        self.waiting = {*WAITING, LIFT} if lifts else WAITING

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Check an operation and execute it.

        Args:
            func: the operation.
            types: types of the tensor arguments.
            args: positional arguments.
            kwargs: keyword arguments.

        Raises:
            WaitingOperationError: the operation would wait.
        """
        masked = str(func).startswith("aten.index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if str(func) in self.waiting or masked:
            raise WaitingOperationError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(settings: Settings, *, lifts: bool) -> Iterator[None]:
    """Raise an error in the block at any operation that waits for the device; see `Watch`."""
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
    """A replay buffer that always returns the same batch, which is on the device.

    Args:
        batch: the batch.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def sample(self, *_: int) -> Any:
        """Return the batch."""
        return self.batch

    def update_priorities(self, *_: Any) -> None:
        """Do nothing. Priorities (of TD-MPC, by default) are kept on the host, which waits."""


def run(report: Report, settings: Settings) -> None:
    """Check sampling and updates of all methods, and plans of TD-MPC2."""
    set_up(settings)
    for method in METHODS:
        for compiled in (False, True) if settings.on_gpu else (False,):
            agent, replay = make_filled_agent(settings, method=method)
            compiler = acceleration.install(agent) if compiled else None
            kind = f"{method}, {'compiled' if compiled else 'eager'}"
            size = (agent.config.batch_size, length_of(agent))
            fixed = OneBatch(replay.sample(*size))
            check(report, settings, f"{kind}: update", lambda a=agent, r=fixed: a.update(r))
            if method == "tdmpc2":
                check(report, settings, f"{kind}: plan", lambda a=agent: plan_on_device(a))
            if method == "tdmpc2" or settings.on_gpu:
                check(report, settings, f"{kind}: sample", lambda r=replay, s=size: r.sample(*s))
            if compiler is not None:
                report.add(f"{kind}: still compiled", float(compiler.enabled), at_least=1.0)


def length_of(agent: Any) -> int:
    """Return the number of transitions of each sub-trajectory that an agent samples."""
    return getattr(agent.config, "batch_length", None) or agent.replay_length


def check(report: Report, settings: Settings, name: str, call: Any) -> None:
    """Check that a call does not wait.

    Args:
        report: report of the section.
        settings: settings of the section.
        name: name of the check.
        call: function to check.
    """
    for _ in range(WARM_UP):  # compile and record
        call()
    waits, message = False, ""
    try:
        with watched(settings, lifts=name.endswith("update")):
            call()
    # The warning is an error here: a compiled function that waited was called again uncompiled.
    except (RuntimeError, RuntimeWarning) as error:
        waits, message = True, (str(error).strip().splitlines() or [type(error).__name__])[0]
    report.add(f"{name}: waits", float(waits), at_most=0.0, note=message)


def plan_on_device(agent: Any) -> Any:
    """Execute a planning call without the final transfer of the action to the host, which waits."""
    device = agent.device
    with torch.no_grad():
        action, agent.previous_mean[True] = agent.functions.decide(
            torch.zeros(1, *observation().shape[1:], device=device),
            None,
            agent.warm_start(np.array([False]), True),
            torch.full((), agent.min_std(), device=device),
            True,
        )
    return action
