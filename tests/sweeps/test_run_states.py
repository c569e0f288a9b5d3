"""States of runs, determined from their directories, leases and the SLURM queue."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking import run_states
from sweeps.tracking.job_logs import last_error
from sweeps.tracking.run_states import Observer
from sweeps.tracking.sweep_folder import relative
from tdmpc2.common.run.lock import EXPIRY_SECONDS, Lease
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.runners.specs import make_offline_spec
from tests.sweeps.directories import one_array, plan, write_lease, write_status, write_sweep

BUDGET = 5_000


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "new"),
        (("COMPLETED", BUDGET), "done"),
        (("COMPLETED", BUDGET - 1), "blocked"),  # the budget was raised; its episodes are gone
        (("DIVERGED", 100), "diverged"),
        (("FAILED", 100), "failed"),
        (("INTERRUPTED", 100), "resumable"),
        (("CANCELLED", 100), "resumable"),  # no version writes it
        (("RUNNING", 100), "stale"),
    ],
)
def test_a_run_that_nobody_is_at(
    status: tuple[str, int] | None, state: str, tmp_path: Path
) -> None:
    (run,) = plan(tmp_path, 1)
    if status is not None:
        write_status(run, *status)
    assert look(tmp_path, run) == state


@pytest.mark.parametrize("unit", ["env_steps", "num_updates"])
@pytest.mark.parametrize("state", ["INTERRUPTED", "FAILED", "RUNNING"])
def test_an_unfinished_run_that_is_past_a_smaller_budget_is_done(
    unit: str, state: Any, tmp_path: Path
) -> None:
    """It keeps its own budget: started for the smaller one, it would end there."""
    (run,) = plan(tmp_path, 1, env_steps=BUDGET)
    if unit == "num_updates":
        spec = make_offline_spec("tdmpc2", "mt30", 1, "none", num_updates=BUDGET)
        run = PlannedRun(spec, spec.run_dir(tmp_path), kind="mt30 5M")
    run.directory.mkdir(parents=True)
    RunFiles(run.directory, run.spec, {}).set_state(state, 3_000)
    name = str(run.directory.relative_to(tmp_path))
    found = [Observer(tmp_path).look(name, budget).state for budget in (2_000, 3_000)]
    assert found == ["done", "done"]
    assert Observer(tmp_path).look(name, 4_000).state != "done"


@pytest.mark.parametrize("unit", ["env_steps", "num_updates"])
def test_a_completed_run_continues_with_what_it_has_kept(unit: str, tmp_path: Path) -> None:
    """From the episodes of an online run, or the dataset of another, and from its checkpoint."""
    (run,) = plan(tmp_path, 1, env_steps=BUDGET)
    if unit == "num_updates":
        spec = make_offline_spec("tdmpc2", "mt30", 1, "none", num_updates=BUDGET)
        run = PlannedRun(spec, spec.run_dir(tmp_path), kind="mt30 5M")
    run.directory.mkdir(parents=True)
    records = RunFiles(run.directory, run.spec, {})
    records.set_state("COMPLETED", BUDGET - 1)
    records.write_spec({"keep_replay": False})
    view = Observer(tmp_path).look(str(run.directory.relative_to(tmp_path)), BUDGET)
    assert view.state == "blocked"
    if unit == "env_steps":
        assert "without keep_replay=true, so it cannot continue to 5,000" in view.message
        records.write_spec({"keep_replay": True})
    checkpoint = run.directory / "checkpoints" / "000000000100"
    for state in ("blocked", "resumable"):
        view = Observer(tmp_path).look(str(run.directory.relative_to(tmp_path)), BUDGET)
        assert view.state == state
        assert ("no checkpoint left" in view.message) == (state == "blocked")
        assert view.needs_replay == (unit == "env_steps" and state == "resumable")
        checkpoint.mkdir(parents=True, exist_ok=True)
    (run.directory / "spec.json").write_text("[")
    assert look(tmp_path, run) == "damaged"


def test_a_run_that_was_killed_before_it_recorded_its_end(tmp_path: Path) -> None:
    """Its last checkpoint has no episodes, so that only its own budget is left to record."""
    (run,) = plan(tmp_path, 1, env_steps=BUDGET - 1)
    run.directory.mkdir(parents=True)
    records = RunFiles(run.directory, run.spec, {})
    records.set_state("RUNNING", BUDGET - 100)
    manifest = {"format": 1, "agent_step": 1, "state_sha256": "", "oldest_episode": 0}
    shard = {"name": "a", "first": 0, "count": 1, "sha256": ""}
    for step, shards in ((1, [shard]), (2, [])):
        checkpoint = run.directory / "checkpoints" / f"{step:012d}"
        checkpoint.mkdir(parents=True)
        write_json(checkpoint / "manifest.json", {**manifest, "shards": shards})
        assert look(tmp_path, run) == "stale"  # the first one can continue
    shutil.rmtree(checkpoint.with_name(f"{1:012d}"))
    directory = str(run.directory.relative_to(tmp_path))
    assert Observer(tmp_path).look(directory, BUDGET - 1).state == "stale"
    view = Observer(tmp_path).look(directory, BUDGET)
    assert view.state == "blocked"
    assert view.message.startswith("finished at 4,999 env steps without keep_replay=true, though ")
    (checkpoint / "manifest.json").write_text("[")
    assert look(tmp_path, run) == "stale"  # the process says what is damaged


def test_a_run_that_ends_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = plan(tmp_path, 1)
    write_status(run, "RUNNING", 100)

    def ending(*_: object) -> None:
        write_status(run, "COMPLETED", BUDGET)

    monkeypatch.setattr(run_states, "live_holder", ending)
    assert look(tmp_path, run) == "done"


def look(runs: Path, run: object) -> str:
    directory = run.directory.relative_to(runs)  # type: ignore[attr-defined]
    return Observer(runs).look(str(directory), BUDGET).state


def test_a_lease_that_beats_means_running(tmp_path: Path) -> None:
    here, there, silent = plan(tmp_path, 3)
    for run in (here, there, silent):
        write_status(run, "RUNNING", 100)
    write_lease(there)
    write_lease(silent)
    lease = silent.directory / "lease.json"
    old = lease.stat().st_mtime - EXPIRY_SECONDS - 5
    os.utime(lease, (old, old))
    with Lease(here.directory):
        assert [look(tmp_path, run) for run in (here, there, silent)] == [
            "running",
            "running",
            "stale",
        ]
    assert look(tmp_path, here) == "stale"


def test_runs_that_are_read_for_minutes_stay_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats go on while an observer reads thousands of runs."""
    (run,) = plan(tmp_path, 1)
    write_status(run, "RUNNING", 100)
    write_lease(run)
    observer = Observer(tmp_path)
    later, clock = 2 * EXPIRY_SECONDS, time.monotonic
    lease = run.directory / "lease.json"
    heartbeat = lease.stat().st_mtime + later
    os.utime(lease, (heartbeat, heartbeat))
    directory = str(run.directory.relative_to(tmp_path))
    assert observer.look(directory, BUDGET).state == "stale"
    monkeypatch.setattr(time, "monotonic", lambda: clock() + later)
    assert observer.look(directory, BUDGET).state == "running"


def test_a_queued_job_counts_before_one_of_a_later_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back between two launches, or they were on two machines."""
    runs = plan(tmp_path, 2)
    later, earlier = "2026-03-29T02:30:00+00:00", "2026-03-29T01:30:00+00:00"
    for number, (planned, launched) in enumerate(((runs, later), (runs[:1], earlier)), start=7):
        arrays = one_array(tmp_path, planned, str(number))
        write_sweep(tmp_path, planned, cluster="slurm", arrays=arrays, launched=launched)
    for queue, state in (({"8": "PENDING"}, "queued"), ({"7_0": "PENDING"}, "queued"), ({}, "new")):
        monkeypatch.setattr(run_states, "read_queue", lambda names, queue=queue: queue)
        assert look(tmp_path, runs[0]) == state


def test_the_queue_tells_waiting_from_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan(tmp_path, 4)
    write_status(runs[1], "INTERRUPTED", 100)  # requeued
    write_status(runs[2], "RUNNING", 100)  # killed
    write_sweep(tmp_path, runs, cluster="slurm", arrays=one_array(tmp_path, runs, "7"))
    asked = []

    def queue(names: list[str]) -> dict[str, str]:
        asked.extend(names)
        return {"7_0": "PENDING", "7_1": "PENDING", "7_3": "RUNNING"}

    monkeypatch.setattr(run_states, "read_queue", queue)
    assert [look(tmp_path, run) for run in runs] == ["queued", "queued", "stale", "running"]
    assert asked[0].startswith("tdmpc2-tasks-")


def test_without_slurm_at_hand_queued_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without squeue, as on another machine, submitted runs without activity count as queued."""
    runs = plan(tmp_path, 3)
    write_status(runs[0], "COMPLETED", BUDGET)
    write_status(runs[1], "RUNNING", 10)
    write_sweep(tmp_path, runs, cluster="slurm", arrays=one_array(tmp_path, runs, "7"))
    monkeypatch.setattr(run_states, "read_queue", lambda names: None)
    assert [look(tmp_path, run) for run in runs] == ["done", "stale", "queued"]


@pytest.mark.parametrize(
    ("job", "state"), [("7", "failed"), ("6", "queued"), (None, "queued"), ("damaged", "queued")]
)
def test_without_slurm_at_hand_a_run_that_failed_in_its_last_job_has_failed(
    job: str | None, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed before, its last job may wait."""
    (run,) = runs = plan(tmp_path, 1)
    write_status(run, "FAILED", 10)
    attempts: object = [{"commit": "a", "slurm_job": job}]
    write_json(run.directory / "attempts.json", "x" if job == "damaged" else attempts)
    write_sweep(tmp_path, runs, cluster="slurm", arrays=one_array(tmp_path, runs, "7"))
    monkeypatch.setattr(run_states, "read_queue", lambda names: None)
    assert look(tmp_path, run) == state
    local = [{"commit": "a", "slurm_job": "7"}, {"commit": "a", "slurm_job": None}]
    write_json(run.directory / "attempts.json", local)  # retried on this machine
    assert look(tmp_path, run) == "failed"


def test_a_job_that_said_why_it_ended_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = plan(tmp_path, 2)
    sweep = write_sweep(tmp_path, runs, cluster="slurm", arrays=one_array(tmp_path, runs, "7"))
    (sweep.path / "0001" / "7_1_0_log.err").write_text("submitit: x\nerror: no room\nsrun: y\n")
    monkeypatch.setattr(run_states, "read_queue", lambda names: {})
    observer = Observer(tmp_path)
    views = [observer.look(str(run.directory.relative_to(tmp_path)), BUDGET) for run in runs]
    assert [(view.state, view.message) for view in views] == [("new", ""), ("failed", "no room")]
    assert views[1].log.name == "7_1_0_log.err"


REFUSAL = "error: the numeric path has changed; use allow_numeric_change=true\n"
STOP = "stopped at env step 100, between episodes (signal 12)\n"


@pytest.mark.parametrize("state", ["INTERRUPTED", "FAILED", "RUNNING", "COMPLETED"])
@pytest.mark.parametrize("queue", [{}, None])
def test_a_resumed_job_that_was_refused_says_why(
    state: str, queue: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is requeued appends to its log, after the last status of its run."""
    (run,) = runs = plan(tmp_path, 1, env_steps=BUDGET)
    run.directory.mkdir(parents=True)
    RunFiles(run.directory, run.spec, {}).write_spec({"keep_replay": True})
    (run.directory / "checkpoints" / f"{100:012d}").mkdir(parents=True)
    write_status(run, state, 100, message="before")
    sweep = write_sweep(tmp_path, runs, cluster="slurm", arrays=one_array(tmp_path, runs, "7"))
    log = sweep.path / "0001" / "7_0_log.err"
    monkeypatch.setattr(run_states, "read_queue", lambda names: queue)

    def view(text: str) -> tuple[str, str]:
        log.write_text(text)
        found = Observer(tmp_path).look(str(run.directory.relative_to(tmp_path)), BUDGET)
        return found.state, found.message

    before = view(STOP)
    assert view(REFUSAL + STOP) == before
    assert view(STOP + REFUSAL) == ("failed", REFUSAL.removeprefix("error: ").strip())
    status = run.directory / "status.json"
    later = status.stat().st_mtime + 60  # started again on this machine
    os.utime(status, (later, later))
    assert view(STOP + REFUSAL) == before


def test_a_process_of_this_machine_that_never_began_has_failed(tmp_path: Path) -> None:
    (run,) = plan(tmp_path, 1)
    run.directory.mkdir(parents=True)
    run.log.write_text("error: one episode takes 51 rows\n")
    assert look(tmp_path, run) == "failed"


def test_all_seeds_of_a_process_that_never_began_have_failed(tmp_path: Path) -> None:
    """Its output is in the directory of the first seed; the others need not have one."""
    planned = plan(tmp_path, 3)
    first, second, alone = [relative([run], tmp_path) for run in planned]
    write_sweep(tmp_path, planned, processes=[first + second, alone])
    planned[0].directory.mkdir(parents=True)
    log = planned[0].directory / "log.txt"
    log.write_text("error: no such device\n")
    observer = Observer(tmp_path)
    views = [observer.look(one, BUDGET) for (one,) in (first, second, alone)]
    assert [view.state for view in views] == ["failed", "failed", "new"]
    assert (views[1].log, views[1].message) == (log, "no such device")


def test_the_last_launch_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan(tmp_path, 1)
    for job, launched in (("7", "2026-01-01T00:00:00"), ("8", "2026-01-02T00:00:00")):
        arrays = one_array(tmp_path, runs, job)
        write_sweep(tmp_path, runs, cluster="slurm", arrays=arrays, launched=launched)
    monkeypatch.setattr(run_states, "read_queue", lambda names: {"8": "PENDING"})
    view = Observer(tmp_path).look(str(runs[0].directory.relative_to(tmp_path)), BUDGET)
    assert (view.state, view.job) == ("queued", "8")


def test_errors_are_found_at_the_end_of_long_logs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_error(log) == ""
    log.write_text("error: early\n" + "line\n" * 10_000)
    assert last_error(log) == ""
    log.write_text("line\n" * 10_000 + "error: late\nmore\n")
    assert last_error(log) == "late"
