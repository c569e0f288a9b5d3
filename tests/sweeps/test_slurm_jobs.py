"""Submission of sweeps to a simulated SLURM: submit limits, and the job after the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps import launch
from sweeps.execution import slurm, slurm_queries
from sweeps.execution.slurm_queries import Partition
from sweeps.tracking import run_states
from sweeps.tracking.sweep_folder import all_sweeps
from tests.runs import TINY

SETTINGS = [f"{key}={value}" for key, value in TINY.items() if key != "task"]


class Simulated:
    """A cluster with a submit limit, which nothing leaves."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.num_jobs = limit, 0
        self.comments: list[str] = []

    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.num_jobs

    def submit(self, jobs: Sequence[Any], *_: Any, comment: str, **options: Any) -> str:
        if self.limit is not None and self.num_jobs + len(jobs) > self.limit:
            raise slurm.UserError("SLURM refuses the jobs: AssocMaxSubmitJobLimit")
        self.num_jobs += len(jobs)
        self.comments.append(comment)
        return str(len(self.comments))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    """Replace every query of SLURM, and the submission."""
    simulated = Simulated()
    partition = Partition("main", True, None, False)
    monkeypatch.setattr(slurm_queries, "choose", lambda wanted: "slurm")
    monkeypatch.setattr(slurm_queries, "choose_partition", lambda wanted: partition)
    monkeypatch.setattr(slurm_queries, "preemption_of", lambda name: "OFF")
    monkeypatch.setattr(slurm_queries, "max_array_size", lambda: 1001)
    monkeypatch.setattr(slurm_queries, "jobs_left", simulated.left)
    monkeypatch.setattr(slurm, "check", lambda resources: None)
    monkeypatch.setattr(slurm, "submit", simulated.submit)
    monkeypatch.setattr("sweeps.execution.code_snapshot.take", lambda root, to: to / "copy")
    monkeypatch.setattr(run_states, "read_queue", lambda names: {})
    return simulated


def sweep(runs: Path, *more: str) -> int:
    """Launch three tiny runs."""
    return launch.main(["tasks=toy-pointmass", "seeds=3", f"runs={runs}", *SETTINGS, *more])


def test_a_reached_submit_limit_is_said_and_nothing_is_written(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.limit = 0
    assert sweep(tmp_path, "max_parallel=2", "after=figures") == launch.LEFT_OUT
    printed = capsys.readouterr().out
    assert "SLURM, default partition: 3 jobs; each: " in printed
    assert "Nothing submitted: your submit limit is reached. Launch again when" in printed
    assert not all_sweeps(tmp_path)
    assert not list(tmp_path.rglob("0001"))
