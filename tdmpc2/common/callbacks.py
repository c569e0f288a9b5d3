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
        on_evaluating: called before every decision of an evaluation with the decisions done
            and the most there can be.
        on_evaluation: called with the step, figures to show, and all that is recorded.
    """

    stop_requested: Callable[[], bool] = lambda: False
    stop_soon: Callable[[float], bool] = lambda now: False
    on_progress: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None
    on_evaluating: Callable[[int, int], None] = lambda done, most: None
    on_evaluation: Callable[[int, Mapping[str, float], Mapping[str, Any]], None] = (
        lambda step, figures, row: None
    )
