"""Cancelling the SLURM jobs of a sweep: by recorded id, only the user's own, and until they end."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps import cancel
from sweeps.execution import slurm_cancel, submission_lease
from sweeps.tracking.sweep_folder import SweepFolder, job_name, write_submission
from tdmpc2.common.run.lock import InUseError, Lease
from tests.sweeps.directories import one_array, plan, write_lease, write_sweep
from tests.sweeps.fake_slurm import use_fake_slurm


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a cluster; return the file to which `scancel` writes its arguments."""
    return use_fake_slurm(tmp_path / "bin", monkeypatch)


def sweep_of(runs: Path, job: str | None, num: int = 2) -> SweepFolder:
    """A sweep with one job array; None if its launch has not recorded the id."""
    planned = plan(runs, num)
    arrays: list[dict[str, Any]] = one_array(runs, planned, "")
    arrays[0]["job"] = job
    return write_sweep(runs, planned, cluster="slurm", arrays=arrays)


def test_only_recorded_jobs_of_the_user_are_named(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    planned = plan(runs, 2)
    arrays = one_array(runs, planned, "70") + one_array(runs, planned, "72")
    sweep = write_sweep(runs, planned, cluster="slurm", arrays=arrays, figures="71")
    assert cancel.main([f"runs={runs}"]) == 1  # jobs of others are left
    assert scancel.read_text(encoding="utf-8") == "70 71\n"
    printed = capsys.readouterr().out
    assert f"{sweep.name}: 3 jobs cancelled (70, 71)" in printed
    assert f"{sweep.name}: 2 jobs of other users are left" in printed
    asked = (scancel.parent / "asked").read_text()
    assert asked.count(f"--name={job_name(sweep.name)}") == 3  # twice before, and once after


def test_a_sweep_of_the_same_name_elsewhere_is_left_alone(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders hold the same runs, so the names of their jobs are equal."""
    here, there = tmp_path / "here", tmp_path / "there"
    sweep_of(here, "90")
    sweep_of(there, "70")
    assert cancel.main([f"runs={here}"]) == 0
    assert not scancel.exists()
    assert "nothing is running or queued" in capsys.readouterr().out


def test_the_job_after_the_runs_is_cancelled(tmp_path: Path, scancel: Path) -> None:
    after = {"job": "71", "comment": "c", "purpose": "draws the figures", "after": ["90"]}
    arrays = one_array(tmp_path, plan(tmp_path, 2), "90")
    write_sweep(tmp_path, plan(tmp_path, 2), cluster="slurm", arrays=arrays, follow_up=after)
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert scancel.read_text(encoding="utf-8") == "71\n"


@pytest.mark.parametrize("job", ["70", None])
def test_without_squeue(
    job: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is not known whether jobs are in the queue, also those of which no id is recorded."""
    sweep_of(tmp_path, job)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cancel.main([f"runs={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert "squeue does not respond on this machine" in printed
    assert "nothing is running" not in printed


def test_a_damaged_record_of_a_launch_is_named(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its jobs are unknown; those of other launches are cancelled."""
    sweep = sweep_of(tmp_path, "70")
    damaged = sweep.new_submission() / "submission.json"
    damaged.write_text("[")
    assert cancel.main([f"runs={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert f"damaged: {damaged}: " in printed
    assert "2 jobs cancelled (70)" in printed


def test_what_scancel_refuses_does_not_keep_other_sweeps_from_being_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    sweeps = {sweep_of(runs, job, num).name: job for num, job in ((2, "70"), (1, "71"))}
    first, second = sorted(sweeps)
    failing = f'[ "$1" = {sweeps[second]} ] || {{ echo "scancel: error: denied" >&2; exit 1; }}'
    named = use_fake_slurm(tmp_path / "bin", monkeypatch, answers=4, end=failing)
    assert cancel.main([f"runs={runs}", "suite=tasks"]) == 1
    assert named.read_text(encoding="utf-8") == f"{sweeps[first]}\n{sweeps[second]}\n"
    printed = capsys.readouterr().out
    assert f"{first}: scancel failed: denied (jobs {sweeps[first]})\n" in printed
    assert f"{second}: " in printed
    assert f"cancelled ({sweeps[second]})" in printed


def test_an_scancel_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    sweep_of(runs, "70")
    use_fake_slurm(tmp_path / "bin", monkeypatch, end="exec sleep 60")
    monkeypatch.setattr("sweeps.execution.slurm_queries.ANSWER_SECONDS", 0.2)
    assert cancel.main([f"runs={runs}"]) == 1
    assert "scancel did not respond within 0.2 s (jobs 70)\n" in capsys.readouterr().out


@pytest.mark.parametrize(("answers", "code"), [(4, 0), (99, 1)])
def test_jobs_that_save_are_waited_for(
    answers: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A launch would take them for running jobs, and submit nothing."""
    runs = tmp_path / "runs"
    sweep_of(runs, "70")
    use_fake_slurm(tmp_path / "bin", monkeypatch, answers=answers)
    seconds = itertools.count(0, 20)
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: None)
    monkeypatch.setattr(slurm_cancel, "time", clock)
    assert cancel.main([f"runs={runs}"]) == code
    printed = capsys.readouterr().out
    assert printed.count("waiting until the jobs have saved and ended\n") == 1
    line = "squeue still lists jobs after 60 s; launch again when all have ended\n"
    assert printed.count(line) == code


def test_jobs_that_a_launch_is_submitting_are_cancelled_too(
    tmp_path: Path, scancel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    sweep = sweep_of(runs, "70")
    with contextlib.ExitStack() as launch:
        launch.enter_context(Lease(runs / "sweeps"))

        def submit(_: float) -> None:
            arrays = one_array(runs, plan(runs, 1), "71")
            write_submission(sweep.new_submission(), "slurm", arrays=arrays)
            launch.close()

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=submit)
        monkeypatch.setattr(submission_lease, "time", clock)
        assert cancel.main([f"runs={runs}"]) == 0
    assert scancel.read_text(encoding="utf-8") == "70 71\n"
    assert not (runs / "sweeps" / "lease.json").exists()


def test_a_sweep_that_a_launch_is_submitting_is_cancelled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of the next look of a study."""
    runs = tmp_path / "runs"
    named = use_fake_slurm(tmp_path / "bin", monkeypatch, answers=4)
    sweep_of(runs, "70")
    with contextlib.ExitStack() as launch:
        launch.enter_context(Lease(runs / "sweeps"))

        def submit(_: float) -> None:
            sweep_of(runs, "71", 1)
            launch.close()

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=submit)
        monkeypatch.setattr(submission_lease, "time", clock)
        assert cancel.main([f"runs={runs}", "suite=tasks"]) == 0
    assert sorted(named.read_text(encoding="utf-8").split()) == ["70", "71"]


def test_runs_of_jobs_of_another_cancelled_sweep_are_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep of more seeds has no jobs of its own for those that were queued before."""
    runs = tmp_path / "runs"
    planned = plan(runs, 3)
    for some, submitted, job in ((planned[:2], planned[:2], "70"), (planned, planned[2:], "71")):
        write_sweep(runs, some, cluster="slurm", arrays=one_array(runs, submitted, job))
    for run in planned[:2]:
        write_lease(run, slurm_job="70")
    use_fake_slurm(tmp_path / "bin", monkeypatch, answers=4)
    assert cancel.main([f"runs={runs}", "suite=tasks"]) == 0
    assert "may go on" not in capsys.readouterr().out


def test_a_launch_that_submits_for_long_is_named(
    tmp_path: Path, scancel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_of(tmp_path / "runs", "70")
    monkeypatch.setattr(submission_lease, "PATIENCE_SECONDS", -1.0)
    with (
        Lease(tmp_path / "runs" / "sweeps"),
        pytest.raises(InUseError, match=f"in use by process {os.getpid()}"),
    ):
        cancel.main([f"runs={tmp_path / 'runs'}"])
    assert not scancel.exists()


def test_a_full_disk_does_not_prevent_a_cancellation(
    tmp_path: Path,
    scancel: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextlib.contextmanager
    def full(folder: Path) -> Iterator[None]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    sweep_of(tmp_path / "runs", "70")
    monkeypatch.setattr(slurm_cancel, "submission_lease", full)
    assert cancel.main([f"runs={tmp_path / 'runs'}"]) == 1
    assert scancel.read_text(encoding="utf-8") == "70\n"
    assert "cannot be locked (No space left on device)" in capsys.readouterr().out
