"""Which claims of a study were registered before the runs that decide them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeps.planning.planned_run import PlannedRun
from sweeps.studies.decisions import LookResult
from tdmpc2.common.run.schemas import Attempt
from tdmpc2.common.system.atomic_files import read_json

Started = Mapping[tuple[str, str, int], int]
"""Runs that were not started by the study, by method, variant and seed."""


def started_elsewhere(planned: Sequence[PlannedRun], mark: str) -> Started:
    """Count the runs whose first attempt does not record the hash of the study.

    Args:
        planned: runs of the study.
        mark: hash of the study.
    """
    counts: dict[tuple[str, str, int], int] = {}
    for run in planned:
        attempts = _attempts(run.directory)
        if attempts and attempts[0].get("study") != mark:
            key = (run.spec.method, run.spec.variant, run.spec.seed)
            counts[key] = counts.get(key, 0) + 1
    return counts


def describe(result: LookResult, seeds: Sequence[int], started: Started) -> str:
    """Return "pre-registered", or how many of a claim's runs were started before the study.

    Args:
        result: the claim, and the number of seeds at its last look.
        seeds: seeds of the study.
        started: result of `started_elsewhere`.
    """
    chosen = seeds[: result.seeds]
    number = sum(
        started.get((*series, seed), 0) for series in result.claim.series for seed in chosen
    )
    return "pre-registered" if not number else f"no: {number} runs are older"


def _attempts(directory: Path) -> list[Attempt]:
    return read_json(directory / "attempts.json", list[Attempt]) or []
