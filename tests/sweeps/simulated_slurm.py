"""A simulated SLURM, to which sweeps and studies are submitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sweeps.execution import slurm, slurm_queries
from sweeps.execution.slurm_queries import Partition
from sweeps.tracking import run_states
from tdmpc2.common.system.errors import UserError
from tests.runs import TINY

SETTINGS = [f"{key}={value}" for key, value in TINY.items() if key != "task"]


class Simulated:
    """A cluster with a submit limit, which nothing leaves."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.num_jobs = limit, 0
        self.comments: list[str] = []
        self.queue: dict[str, str] = {}
        self.refused, self.refusal = "#none", UserError

    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.num_jobs

    def submit(self, jobs: Sequence[Any], *_: Any, comment: str, **options: Any) -> str:
        over = self.limit is not None and self.num_jobs + len(jobs) > self.limit
        if over or comment.endswith(self.refused):
            raise self.refusal("SLURM refuses the jobs: AssocMaxSubmitJobLimit")
        self.num_jobs += len(jobs)
        self.comments.append(comment)
        job = str(len(self.comments))
        names = [job] if len(jobs) == 1 else [f"{job}_{index}" for index in range(len(jobs))]
        self.queue |= dict.fromkeys(names, "PENDING")
        return job


def simulate(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    """Replace every query of SLURM, and the submission."""
    simulated = Simulated()
    partition = Partition("main", True, None, False)
    monkeypatch.setattr(slurm_queries, "choose", lambda wanted: "slurm")
    monkeypatch.setattr(slurm_queries, "choose_partition", lambda wanted: partition)
    monkeypatch.setattr(slurm_queries, "preemption_of", lambda name: "OFF")
    monkeypatch.setattr(slurm_queries, "max_array_size", lambda: 1001)
    monkeypatch.setattr(slurm_queries, "cluster_name", lambda: "lab")
    monkeypatch.setattr(slurm_queries, "jobs_left", simulated.left)
    monkeypatch.setattr(slurm, "check", lambda resources: None)
    monkeypatch.setattr(slurm, "submit", simulated.submit)
    monkeypatch.setattr("sweeps.execution.code_snapshot.take", lambda root, to: to / "copy")
    monkeypatch.setattr("sweeps.execution.slurm_jobs.is_queued", lambda name, comment: False)
    monkeypatch.setattr(run_states, "read_queue", lambda names: simulated.queue)
    monkeypatch.setattr(run_states, "unlisted", lambda submissions: set())
    return simulated
