"""Which claims of a study were registered before the runs that decide them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sweeps.planning.planned_run import PlannedRun
from sweeps.studies.decisions import LookResult
from sweeps.studies.study import Study
from tdmpc2.common.run.schemas import Attempt
from tdmpc2.common.system.atomic_files import read_json

Started = Collection[tuple[str, str, str, int]]
"""Method, variant, task and seed of the runs that were not started by the study."""


def started_elsewhere(planned: Sequence[PlannedRun], mark: str) -> Started:
    """Return the runs whose first attempt does not record the hash of the study.

    Args:
        planned: runs of the study.
        mark: hash of the study.
    """
    found = set()
    for run in planned:
        attempts = _attempts(run.directory)
        if attempts and attempts[0].get("study") != mark:
            found.add((run.spec.method, run.spec.variant, run.spec.task, run.spec.seed))
    return found


def describe(study: Study, result: LookResult, started: Started) -> str:
    """Return "pre-registered", or how many of a claim's runs were started before the study.

    Args:
        study: the study.
        result: the claim, and the number of seeds at its last look.
        started: result of `started_elsewhere`.
    """
    number = sum(
        (*series, task, seed) in started
        for series in result.claim.series
        for task in study.tasks_of(result.claim)
        for seed in study.seeds[: result.seeds]
    )
    return "pre-registered" if not number else f"no: {number} runs are older"


def _attempts(directory: Path) -> list[Attempt]:
    return read_json(directory / "attempts.json", list[Attempt]) or []
