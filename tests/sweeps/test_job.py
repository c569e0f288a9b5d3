"""What SLURM jobs of a sweep do when they are started, and started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.execution.job import TrainingJob
from sweeps.execution.process_file import write_file
from tests.sweeps.directories import plan


@pytest.mark.parametrize(("restarts", "used"), [(None, "previous"), ("1", "latest")])
def test_only_the_first_start_of_a_job_drops_the_newest_checkpoint(
    restarts: str | None, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued job resumes from what it has saved itself."""
    asked: list[str] = []

    def train(specs: Any, options: Any) -> list[Any]:
        asked.append(options.checkpoint)
        return []

    monkeypatch.setattr("tdmpc2.train.train", train)
    monkeypatch.setattr(
        "sweeps.execution.process_file.measure_reference_scores", lambda *a, **k: {}
    )
    if restarts is None:
        monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    else:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    options = {"runs": tmp_path, "checkpoint": "previous"}
    file = write_file(tmp_path, 1, plan(tmp_path, 1), options)
    assert TrainingJob([file], tmp_path)._train(file) == []
    assert asked == [used]
