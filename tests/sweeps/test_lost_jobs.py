"""Jobs whose ids a launch has not recorded are found, and records of launches at work are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.tracking import run_states
from sweeps.tracking.run_states import find_lost_arrays, is_queued
from sweeps.tracking.sweep_folder import SweepFolder, write_submission
from tdmpc2.common.run.lock import Lease
from tests.sweeps.directories import one_array, plan, write_sweep


def array(runs: Path, seeds: slice, job: str | None, comment: str) -> dict[str, Any]:
    """Build the record of a job array with a comment."""
    (record,) = one_array(runs, plan(runs, 4)[seeds], "")
    return {**record, "job": job, "comment": comment}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """A sweep whose launch has not recorded the id of its first array."""
    arrays = [array(tmp_path, slice(0, 2), None, "c#0")]
    return write_sweep(tmp_path, plan(tmp_path, 4), cluster="slurm", arrays=arrays)


def test_what_a_launch_records_while_squeue_is_asked_is_kept(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, (before,) = sweep.runs, sweep.submissions()

    def squeue(names: object) -> list[tuple[str, str]]:
        arrays = [
            array(runs, slice(0, 2), None, "c#0"),
            array(runs, slice(2, 4), "71", "c#1"),
        ]
        later = {"job": "72", "comment": "c", "purpose": "p", "after": ["70", "71"]}
        write_submission(before.folder, "slurm", arrays=arrays, follow_up=later)
        return [("c#0", "70")]

    monkeypatch.setattr(run_states, "_comments_in_queue", squeue)
    assert find_lost_arrays([before])
    assert before.job_ids() == ["70"]
    assert sweep.submissions()[0].job_ids() == ["70", "71", "72"]


def test_the_record_of_a_launch_at_work_is_left_to_it(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_states, "_comments_in_queue", lambda names: [("c#0", "70")])
    with Lease(sweep.runs / "sweeps"):
        (seen,) = sweep.submissions()
        assert find_lost_arrays([seen])
        assert seen.job_ids() == ["70"]
        assert sweep.submissions()[0].job_ids() == []
        find_lost_arrays(sweep.submissions(), locked=True)  # by the process that holds the lease
        assert sweep.submissions()[0].job_ids() == ["70"]


def test_a_job_that_goes_on_with_a_study_sees_another_one_with_its_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nprintf '70|c#look\\n71|c#look\\n72|c#other\\n'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for own in ("70", "71", "80"):
        monkeypatch.setenv("SLURM_JOB_ID", own)
        assert is_queued("name", "c#look")
    monkeypatch.setenv("SLURM_JOB_ID", "72")
    assert not is_queued("name", "c#other")
