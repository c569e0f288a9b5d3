"""Meters of time and memory that the benchmarks share."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial

import torch

from tdmpc2.common.numerics.recorded_steps import WARM_CALLS

WARM_UP = WARM_CALLS + 1
"""Calls before the timed ones; on a GPU, the last of these records the step."""


class Stopwatch:
    """Timer of calls, including the work that they start on the device.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.wait: Callable[[], object] = (
            partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
        )

    def __call__(self, function: Callable[[], object]) -> float:
        """Return the seconds that a call takes."""
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start


def peak_gb() -> float:
    """Return the largest memory that this process has occupied so far, in 10⁹ bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
