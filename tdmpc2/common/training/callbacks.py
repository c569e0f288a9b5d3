"""How a training loop talks to whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Callbacks:
    """What a loop asks and tells.

    Attributes:
        stop_requested: asked before every decision and update: stop at once?
        stop_soon: asked between episodes, with the time: save, then stop?
        on_progress: called with the step and figures at every episode end.
        on_doing: called while the step stands still with what is done meanwhile, how much of it
            is done and how much there is at most: decisions of an evaluation, or gradient steps.
        on_evaluation: called with the step, figures to show, and all that is recorded.
    """

    stop_requested: Callable[[], bool] = lambda: False
    stop_soon: Callable[[float], bool] = lambda now: False
    on_progress: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None
    on_doing: Callable[[str, int, int], None] = lambda what, done, most: None
    on_evaluation: Callable[[int, Mapping[str, float], Mapping[str, Any]], None] = (
        lambda step, figures, row: None
    )
