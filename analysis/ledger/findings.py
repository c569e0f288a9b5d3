"""Statuses of claims, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.equivalence import Difference
from analysis.stats.estimate_texts import bounds_text, coverage_text

REPRODUCED = "reproduced"
SO_FAR = "reproduced so far"
NOT_REPRODUCED = "not reproduced"
SUPPORTED = "supported"
SUPPORTED_SO_FAR = "supported so far"
CONTRADICTED = "contradicted"
EVALUATED = "evaluated from official checkpoints"
RECOMPUTED = "recomputed from released curves"
TESTED = "checked by a test"
QUOTED = "quoted"
OPEN = "open"

MEANINGS = {
    REPRODUCED: "`reproduce.py` calls own runs of all tasks at the full budget reproduced",
    SO_FAR: "`reproduce.py` calls own runs of some tasks, or below the full budget, reproduced",
    NOT_REPRODUCED: "`reproduce.py` calls own runs worse or better",
    SUPPORTED: "a claim that one agent scores lower, higher or the same as another holds for own "
    "runs of all tasks at the full budget",
    SUPPORTED_SO_FAR: "such a claim holds for own runs of some tasks, or below the full budget",
    CONTRADICTED: "own runs exclude such a claim",
    EVALUATED: "a third party evaluated the authors' weights; not trained again",
    RECOMPUTED: "the number follows from the authors' released curves; not trained again",
    TESTED: "the number follows from the code, and a test compares it",
    QUOTED: "the number is known, but nothing here can be compared with it yet",
    OPEN: "nothing is settled",
}
"""Statuses in the order of strength, with their meaning."""


@dataclass(frozen=True)
class Finding:
    """A claim with its status.

    Attributes:
        id: name of the claim; claims on several methods or sizes have one finding for each.
        places: figures, tables and appendices that state it.
        statement: the claim as a sentence.
        status: key of `MEANINGS`.
        evidence: what the status rests on, and what else is known.
        command: command whose runs would settle it.
    """

    id: str
    places: tuple[str, ...]
    statement: str
    status: str
    evidence: tuple[str, ...]
    command: str


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of claims with each status that occurs, strongest first."""
    found = [finding.status for finding in findings]
    return {status: found.count(status) for status in MEANINGS if status in found}


def points_text(gap: Difference, coverage: float) -> str:
    """Return a difference in points with its 95 % interval, or that there is none.

    Args:
        gap: the difference.
        coverage: measured coverage of the interval, which follows if it is not 92 to 98 %.
    """
    low, high = gap.interval(0.95)
    if np.isnan(low):
        return f"{gap.value:+.1f} points, without an interval"
    return f"{gap.value:+.1f} {bounds_text(low, high)} points {coverage_text(coverage)}".rstrip()
