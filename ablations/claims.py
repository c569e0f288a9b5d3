"""Claims on ablations, their verdicts and the default margin."""

from __future__ import annotations

from typing import Literal

Expected = Literal["lower", "same"]
ClaimVerdict = Literal[
    "supported", "contradicted", "lower", "higher", "no difference", "not enough seeds"
]
OPEN: ClaimVerdict = "not enough seeds"
MARGIN = 5.0
"""Default margin in points: a smaller difference counts as no difference."""
