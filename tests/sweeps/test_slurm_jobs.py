"""Submission of sweeps to a simulated SLURM: submit limits, the job after the runs, states."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from sweeps import launch
from sweeps.execution import slurm, slurm_queries
from sweeps.tracking import run_states
from sweeps.tracking.run_states import is_queued
from sweeps.tracking.sweep_folder import all_sweeps
from tdmpc2.common.system.errors import UserError
from tests.sweeps.simulated_slurm import SETTINGS, Simulated, simulate


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    return simulate(monkeypatch)


def sweep(runs: Path, *more: str) -> int:
    """Launch three tiny runs."""
    given = {one.partition("=")[0] for one in more}
    usual = ["tasks=toy-pointmass", "seeds=3", f"runs={runs}", *SETTINGS]
    return launch.main([*(one for one in usual if one.partition("=")[0] not in given), *more])


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


@pytest.mark.parametrize(("limit", "num_runs"), [(None, 3), (4, 3), (3, 2), (2, 1)])
def test_the_job_after_the_runs_has_a_place_below_the_submit_limit(
    limit: int | None, num_runs: int, cluster: Simulated, tmp_path: Path
) -> None:
    cluster.limit = limit
    assert sweep(tmp_path, "after=figures") == 0
    assert cluster.num_jobs == num_runs + 1
    assert cluster.comments[-1].endswith("#figures")


def test_runs_stay_submitted_if_the_job_after_them_is_refused(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.limit = 1
    runs = tmp_path / "runs"
    assert sweep(runs, "after=figures") == launch.LEFT_OUT
    printed = capsys.readouterr().out
    assert "Your submit limit allows 1 of these jobs now; 2 are not submitted" in printed
    assert (
        "warning: the runs are submitted, but not the job that draws the figures (SLURM" in printed
    )
    command = f"python -m analysis.make_figures runs={runs} out={tmp_path / 'paper_figures'}"
    assert f"run `{command}` when all runs have ended" in printed
    (submission,) = all_sweeps(runs)[0].submissions()
    assert (submission.job_ids(), submission.lost()) == (["1"], [])
    assert submission.facts["slurm_cluster"] == "lab"


@pytest.mark.parametrize("unknown", [False, True])
def test_arrays_that_slurm_has_accepted_count_if_it_refuses_the_next_one(
    unknown: bool,
    cluster: Simulated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The limits of a QOS are not known beforehand."""
    monkeypatch.setattr(slurm_queries, "max_array_size", lambda: 2)
    cluster.refused = "#1"
    cluster.refusal = slurm.NoAnswerError if unknown else UserError
    runs = tmp_path / "runs"
    assert sweep(runs, "after=figures") == launch.LEFT_OUT
    line = f"warning: 2 of 3 jobs are submitted, but {'perhaps ' * unknown}not the others (SLURM"
    assert line in capsys.readouterr().out
    (submission,) = all_sweeps(runs)[0].submissions()
    assert submission.job_ids() == ["1", "2"]
    assert len(submission.lost()) == unknown
    assert (submission.follow_up() or {})["after"] == ["1"]


def test_nothing_is_recorded_as_submitted_if_slurm_refuses_the_first_array(
    cluster: Simulated, tmp_path: Path
) -> None:
    cluster.refused = "#0"
    with pytest.raises(UserError, match="SLURM refuses the jobs"):
        sweep(tmp_path, "after=figures")
    (submission,) = all_sweeps(tmp_path)[0].submissions()
    assert (submission.job_ids(), submission.lost()) == ([], [])
    assert cluster.num_jobs == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, slurm.NoAnswerError])
def test_the_job_after_the_runs_is_found_if_its_id_was_not_recorded(
    error: type[BaseException],
    cluster: Simulated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The launch is interrupted, or SLURM does not answer, when the job is in the queue."""

    def submit(*jobs: Any, comment: str, **options: Any) -> str:
        job = cluster.submit(*jobs, comment=comment, **options)
        if comment.endswith("#figures"):
            raise error("timed out")
        return job

    monkeypatch.setattr(slurm, "submit", submit)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, "after=figures")
    else:
        assert sweep(tmp_path, "after=figures") == launch.LEFT_OUT
        line = "but perhaps not the job that draws the figures (timed out); run `python -m "
        assert line in capsys.readouterr().out
    (folder,) = all_sweeps(tmp_path)
    (before,) = folder.submissions()
    assert before.job_ids() == ["1"]
    monkeypatch.setattr(
        run_states, "_comments_in_queue", lambda names: [(cluster.comments[-1], "2")]
    )
    run_states.find_lost_arrays([before])
    (after,) = folder.submissions()
    assert before.job_ids() == after.job_ids() == ["1", "2"]
    assert (after.follow_up() or {})["after"] == ["1"]


def record_of(runs: Path) -> Path:
    """Return the record of the first launch of the only sweep."""
    (path,) = runs.glob("sweeps/*/0001/submission.json")
    return path


def test_a_launch_is_refused_while_the_queue_is_unknown(
    cluster: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would submit what is in the queue a second time."""
    with monkeypatch.context() as patch:
        patch.setattr(run_states, "read_queue", lambda names: None)
        assert sweep(tmp_path) == 0  # there were no jobs before
        with pytest.raises(UserError, match="squeue or scontrol does not respond"):
            sweep(tmp_path)
    assert sweep(tmp_path) == 0
    assert cluster.num_jobs == 3


def test_a_launch_is_refused_while_it_is_unknown_whether_an_array_was_submitted(
    cluster: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another launch was killed before it had recorded the job id."""
    runs, squeue = tmp_path / "runs", tmp_path / "bin" / "squeue"
    assert sweep(runs) == 0
    record = record_of(runs)
    record.write_text(record.read_text().replace('"job": "1"', '"job": null'))
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    with pytest.raises(UserError, match="squeue or scontrol does not respond"):
        sweep(runs)
    with pytest.raises(UserError, match="squeue or scontrol does not respond"):
        is_queued("name", "comment")
    squeue.write_text(f"#!/bin/sh\necho '1|{cluster.comments[0]}'\n")
    assert sweep(runs) == 0
    assert '"job": "1"' in record.read_text()
    assert cluster.num_jobs == 3


def test_a_launch_is_refused_while_a_record_of_its_runs_cannot_be_read(
    cluster: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(tmp_path) == 0
    record = record_of(tmp_path)
    content = record.read_text()
    record.write_text("{")
    name = re.escape(f"submitted twice: see `squeue --name=tdmpc2-{record.parents[1].name}`")
    with pytest.raises(UserError, match=rf"0001/submission.json: damaged .*{name}"):
        sweep(tmp_path)
    with pytest.raises(UserError, match=name):
        sweep(tmp_path, "dry_run=true")
    assert cluster.num_jobs == 3
    assert sweep(tmp_path, "num_q=3") == 0  # no run of that launch
    assert cluster.num_jobs == 6
    (record.parents[1] / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=name):  # its runs are unknown
        sweep(tmp_path, "num_q=4")
    assert sweep(tmp_path, "num_q=3") == 0  # nothing to submit
    record.write_text(content)
    monkeypatch.setattr(run_states, "can_list", lambda folder: folder != record.parents[1])
    with pytest.raises(UserError, match=f"{record.parents[1].name}: cannot be read"):
        sweep(tmp_path, "num_q=4")
    assert cluster.num_jobs == 6
    with monkeypatch.context() as patch:
        patch.setattr(run_states, "unlisted", lambda launches: {one.folder for one in launches})
        patch.setattr(run_states, "read_queue", lambda names: {})
        with pytest.raises(UserError, match="cannot be read; ask its owner"):  # jobs are hidden
            sweep(tmp_path, "num_q=4")
    cluster.queue.clear()
    assert sweep(tmp_path, "num_q=4") == 0  # without jobs, nothing can be submitted twice
    assert cluster.num_jobs == 9


def test_runs_of_jobs_that_are_ending_are_left_to_them(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM does not say whether such a job, e.g. a cancelled one, comes back to the queue."""
    assert sweep(tmp_path) == 0
    cluster.queue |= {"1_0": "COMPLETING", "1_1": "COMPLETING"}
    (sweep_folder,) = all_sweeps(tmp_path)
    saving = tmp_path / sweep_folder.rows()[0]["directory"]
    saving.mkdir(parents=True)
    (saving / "lease.json").write_text('{"token": "t", "slurm_job": "2"}')
    capsys.readouterr()
    assert sweep(tmp_path) == launch.LEFT_OUT
    printed = capsys.readouterr().out
    line = "2 runs left to SLURM jobs that are ending or being requeued (squeue shows COMPLETING)"
    assert printed.count(line) == 2  # in the plan and at the end
    assert "3 queued or running, 0 to do" in printed
    assert sweep(tmp_path, "only=failed") == 0
    assert cluster.num_jobs == 3
    (saving / "lease.json").unlink()
    cluster.queue = {"1_0": "PENDING"}  # one was requeued
    assert sweep(tmp_path) == 0
    assert cluster.num_jobs == 5


def test_runs_that_another_seed_of_their_process_holds_back_are_named(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 1 has a job of its own."""
    alone = ["seeds=1", "seeds_per_process=3"]
    assert sweep(tmp_path, *alone) == 0
    capsys.readouterr()
    assert sweep(tmp_path, "seeds_per_process=3") == launch.LEFT_OUT
    printed = capsys.readouterr().out
    lines = re.findall(r"  tdmpc2 .*toy-pointmass seeds 2, 3: seed 1 is queued\n", printed)
    assert len(lines) == 2  # in the plan and at the end
    assert "left out" not in printed
    assert cluster.num_jobs == 1


@pytest.mark.parametrize(
    ("kept", "advice"),
    [
        (False, ", without keep_replay=true): cancel them (sweeps/cancel.py) and launch again"),
        (True, "): launch again when they have ended"),
    ],
)
@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_queued_jobs_with_a_smaller_budget_are_named(
    kept: bool,
    advice: str,
    state: str,
    cluster: Simulated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A job has the budget of its launch, also if the status is that of an earlier attempt."""
    assert sweep(tmp_path, "env_steps=300", f"keep_replay={kept}") == 0
    cluster.queue = dict.fromkeys(cluster.queue, state)
    assert sweep(tmp_path, "env_steps=300") == 0
    assert "smaller budget" not in capsys.readouterr().out
    assert sweep(tmp_path, "env_steps=1000", "keep_replay=true") == launch.LEFT_OUT
    printed = capsys.readouterr().out
    line = f"3 runs at work will end at a smaller budget (300 env steps{advice}\n"
    assert printed.count(line) == 2  # in the plan and at the end
    assert "Nothing to start." in printed
    assert sweep(tmp_path, "env_steps=1000", "dry_run=true") == 0
    assert line in capsys.readouterr().out
