"""A statistic with its interval, and when bounds are those of an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
ROUNDING = 1e-9
"""Widths and standard errors up to this size are rounding errors of equal scores."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % interval, all `(num_checkpoints,)`; without one, NaN bounds."""

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def stacked(self) -> np.ndarray:
        """Return point, low and high as `(num_checkpoints, 3)`."""
        return np.stack([self.point, self.low, self.high], axis=-1)


def has_width(low: Any, high: Any) -> Any:
    """Return whether bounds are those of an interval, one or an array of them.

    Bounds are NaN for a single seed, and equal if no score varies. Equal scores of a few seeds do
    not show that all seeds would have this score, so that they have no interval either.
    """
    return high - low > ROUNDING
