"""A run whose process lives but records nothing is named, with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps import status
from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking.progress import ProgressDisplay
from sweeps.tracking.silence import SILENT_SECONDS, silence, silent_seconds
from tdmpc2.common.run.lock import Lease, live_holder
from tdmpc2.common.system.processes import identity_of
from tests.sweeps.directories import plan, write_lease, write_status, write_sweep

NOW = 1_000_000.0


def hanging(run: PlannedRun, *, last_status: float | None, acquired: float | None) -> None:
    """Write a run of this process whose last heartbeat was at `NOW`."""
    write_lease(run, **identity_of(), slurm_job=None, acquired=acquired)
    os.utime(run.directory / "lease.json", (NOW, NOW))
    if last_status is not None:
        write_status(run, "RUNNING", 50)
        os.utime(run.directory / "status.json", (last_status, last_status))


@pytest.mark.parametrize(
    ("last_status", "acquired", "seconds"),
    [
        (NOW - 700, NOW - 5000, 700),
        (NOW - 5000, NOW - 700, 700),  # the status is that of an earlier process
        (None, NOW - 700, 700),  # hangs while its environment is made
        (NOW + 5, NOW - 700, 0),
        (NOW - 700, None, 0),  # a lease of an earlier version does not state its begin
    ],
)
def test_time_without_progress(
    last_status: float | None, acquired: float | None, seconds: float, tmp_path: Path
) -> None:
    (run,) = plan(tmp_path, 1)
    hanging(run, last_status=last_status, acquired=acquired)
    holder = live_holder(run.directory)
    assert holder is not None
    assert silent_seconds(run.directory, holder) == seconds
    assert bool(silence(run.directory, holder)) is (seconds > SILENT_SECONDS)


def test_a_run_at_work_is_not_silent(tmp_path: Path) -> None:
    with Lease(tmp_path):
        holder = live_holder(tmp_path)
        assert holder is not None
        assert isinstance(holder["acquired"], float)
        assert silent_seconds(tmp_path, holder) < 60
        assert silence(tmp_path, holder) == ""
    assert silence(tmp_path, live_holder(tmp_path)) == ""


def test_status_and_launch_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = plan(tmp_path, 3, env_steps=100)
    hanging(runs[0], last_status=NOW - 1500, acquired=NOW - 5000)
    hanging(runs[1], last_status=NOW, acquired=NOW - 5000)
    hanging(runs[2], last_status=None, acquired=NOW - 1500)
    write_sweep(tmp_path, runs)
    assert status.main([f"runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    what = f"no progress for 25 min, though process {os.getpid()} on host "
    assert printed.count(what) == 2
    assert f"tdmpc2 toy-pointmass seed 1 (default): {what}" in printed
    assert f"end it there (kill -9 {os.getpid()}) and launch again" in printed

    display = ProgressDisplay(runs)
    for run in runs:
        run.silence = silence(run.directory, live_holder(run.directory))
    for _ in range(3):  # once, not at every look
        display.update(runs)
    printed = capsys.readouterr().out
    assert printed.count("no progress for 25 min") == 2
    assert "tdmpc2 toy-pointmass seed 3: no progress for 25 min" in printed


def test_a_job_is_ended_by_slurm(tmp_path: Path) -> None:
    (run,) = plan(tmp_path, 1)
    hanging(run, last_status=NOW - 700, acquired=NOW - 700)
    holder = {**(live_holder(run.directory) or {}), "slurm_job": "17_3"}
    assert "(scancel 17_3)" in silence(run.directory, holder)
