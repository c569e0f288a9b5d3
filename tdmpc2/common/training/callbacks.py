"""Callbacks of a training loop: stop requests and progress reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Callbacks:
    """Functions that a training loop calls.

    Attributes:
        stop_requested: called before every decision and update; True stops the loop at once,
            without a checkpoint.
        stop_soon: called between episodes and during evaluations with the current time in seconds;
            True makes the loop save a checkpoint and stop.
        on_progress: called at the end of every episode with the step and metrics to show.
        on_doing: called during long work in which the step does not advance (an evaluation, or
            several gradient steps) with its name, the number of items done, and their maximum.
        on_evaluation: called after an evaluation with the step, metrics to show, and all recorded
            metrics.
    """

    stop_requested: Callable[[], bool] = lambda: False
    stop_soon: Callable[[float], bool] = lambda now: False
    on_progress: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None
    on_doing: Callable[[str, int, int], None] = lambda what, done, most: None
    on_evaluation: Callable[[int, Mapping[str, float], Mapping[str, Any]], None] = (
        lambda step, figures, row: None
    )
