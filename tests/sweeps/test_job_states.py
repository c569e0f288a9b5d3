"""States of runs from what their SLURM jobs, and those before and after them, have left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps import retry, status
from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking import run_states
from sweeps.tracking.job_logs import last_line
from sweeps.tracking.run_states import Observer, View
from sweeps.tracking.silence import SILENT_SECONDS
from sweeps.tracking.sweep_folder import SweepFolder, relative
from tdmpc2.common.system.atomic_files import write_json
from tests.sweeps.directories import one_array, plan, write_lease, write_status, write_sweep

BUDGET = 5_000


def see(runs: Path, planned: list[PlannedRun]) -> list[View]:
    """Look at some runs."""
    observer = Observer(runs)
    return [observer.look(str(run.directory.relative_to(runs)), BUDGET) for run in planned]


def one_job(runs: Path, planned: list[PlannedRun], job: str) -> SweepFolder:
    """Write a sweep whose only job has one process per run."""
    processes = [relative([run], runs) for run in planned]
    arrays = [{"job": job, "elements": [processes]}]
    return write_sweep(runs, planned, cluster="slurm", arrays=arrays)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Simulate a queue, which is empty at first."""
    jobs: dict[str, str] = {}
    monkeypatch.setattr(run_states, "read_queue", lambda names: jobs)
    return jobs


SHELL = "slurm_script: line 20: cd: /gone: No such file or directory\n"
NO_PYTHON = "sh: 1: exec: /venv/bin/python: not found\nsrun: error: n1: task 0: exit code 127\n\n"
REASONS = {
    SHELL: ": slurm_script: line 20: cd: /gone: No such file or directory",
    NO_PYTHON: ": sh: 1: exec: /venv/bin/python: not found",
    "srun: error: Unable to create step\n": ": srun: error: Unable to create step",
    "\n": "",
    "": "",
}


@pytest.mark.parametrize("text", REASONS)
def test_a_job_that_died_before_its_runs_began(
    text: str, queue: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processes of other ranks have no log if `srun` was not reached."""
    planned = plan(tmp_path, 2)
    sweep = one_job(tmp_path, planned, "7")
    log = sweep.path / "0001" / "7_0_log.err"
    queue["7"] = "RUNNING"
    log.write_text(text)
    assert [view.state for view in see(tmp_path, planned)] == ["running"] * 2
    del queue["7"]
    found = [(view.state, view.message, view.log) for view in see(tmp_path, planned)]
    assert found == [("stale", f"its job ended without recording the run{REASONS[text]}", log)] * 2
    assert status.main([f"runs={tmp_path}"]) == 1
    assert "stopped before their budget: 2 runs; launch again" in capsys.readouterr().out
    assert retry.main([f"runs={tmp_path}"]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_a_job_that_was_cancelled_while_it_waited_leaves_new_runs(
    queue: dict[str, str], tmp_path: Path
) -> None:
    planned = plan(tmp_path, 2)
    one_job(tmp_path, planned, "7")
    assert [view.state for view in see(tmp_path, planned)] == ["new"] * 2
    assert status.main([f"runs={tmp_path}"]) == 0


def test_a_refused_job_has_failed_in_all_of_its_processes(
    queue: dict[str, str], tmp_path: Path
) -> None:
    """Each process has a log of its own once `srun` has started it."""
    planned = plan(tmp_path, 2)
    sweep = one_job(tmp_path, planned, "7")
    logs = [sweep.path / "0001" / f"7_{rank}_log.err" for rank in (0, 1)]
    logs[0].write_text("error: ./a: another user could have written it\n")
    found = [(view.state, view.log) for view in see(tmp_path, planned)]
    assert found == [("failed", logs[0])] * 2
    logs[1].write_text("Traceback\nOSError: x\n")
    found = [(view.state, view.log) for view in see(tmp_path, planned)]
    assert found == [("failed", logs[0]), ("stale", logs[1])]


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("own\n" + "srun: error: x\n" * 1_000)
    assert last_line(log) == "srun: error: x"


@pytest.mark.parametrize(
    ("recorded", "state", "ending"),
    [
        (None, "running", True),
        ("RUNNING", "running", True),
        ("INTERRUPTED", "running", True),
        ("COMPLETED", "done", False),
    ],
)
def test_a_job_that_is_ending_may_come_back(
    recorded: str | None, state: str, ending: bool, queue: dict[str, str], tmp_path: Path
) -> None:
    """SLURM shows a job as COMPLETING after `scancel` and after `scontrol requeue`."""
    (run,) = planned = plan(tmp_path, 1)
    one_job(tmp_path, planned, "7")
    queue["7"] = "COMPLETING"
    if recorded is not None:
        write_status(run, recorded, BUDGET if recorded == "COMPLETED" else 100)
    (view,) = see(tmp_path, planned)
    assert (view.state, view.ending) == (state, ending)
    write_lease(run, slurm_job="7")  # its process still saves
    assert see(tmp_path, planned)[0].ending == ending
    write_lease(run)  # a process outside of SLURM has started it again
    assert not see(tmp_path, planned)[0].ending


def write_attempts(run: PlannedRun, *jobs: str) -> None:
    """Write the jobs in which a run was started."""
    run.directory.mkdir(parents=True, exist_ok=True)
    attempts = [{"commit": "a", "slurm_job": job} for job in jobs]
    write_json(run.directory / "attempts.json", attempts)


@pytest.mark.parametrize(
    ("jobs", "slurm_state", "state"),
    [
        (["6", "7"], "RUNNING", "failed"),
        (["6", "7"], "COMPLETING", "failed"),
        (["6", "7"], "PENDING", "queued"),  # requeued: it is started again
        (["6"], "RUNNING", "running"),  # it has failed before, and its process starts
        ([], "RUNNING", "running"),
    ],
)
def test_a_run_that_failed_while_others_of_its_job_go_on(
    jobs: list[str], slurm_state: str, state: str, queue: dict[str, str], tmp_path: Path
) -> None:
    planned = plan(tmp_path, 2)
    one_job(tmp_path, planned, "7")
    queue["7"] = slurm_state
    write_status(planned[0], "FAILED", 100, message="no room")
    write_attempts(planned[0], *jobs)
    write_status(planned[1], "RUNNING", 100)
    write_lease(planned[1])
    failed, other = see(tmp_path, planned)
    assert (failed.state, failed.message, other.state) == (state, "no room", "running")
    write_lease(planned[0])  # its process has started again
    assert see(tmp_path, planned)[0].state == "running"


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_without_a_process_in_a_running_job_is_named(
    begun: bool, queue: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was killed, or hangs before it begins, while other runs of the job go on."""
    (run,) = planned = plan(tmp_path, 1)
    sweep = one_job(tmp_path, planned, "7")
    files = [sweep.path / "0001" / f"7_0_log.{kind}" for kind in ("err", "out")]
    for file in files:
        file.touch()
    if begun:
        write_status(run, "RUNNING", 100)
        files.append(run.directory / "status.json")
    queue["7"] = "RUNNING"

    def silent(*minutes: int) -> bool:
        now = run_states.file_system_time(tmp_path)
        for file, age in zip(files, minutes, strict=False):
            os.utime(file, (now - 60 * age, now - 60 * age))
        (view,) = see(tmp_path, planned)
        assert view.state == "running"
        return bool(view.silence)

    assert SILENT_SECONDS == 600
    assert silent(25, 20, 30)
    assert status.main([f"runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "no process has trained it for 20 min, though its job 7 runs: it was killed" in printed
    assert f"({files[0]} may say why)" in printed
    assert "end the job (scancel 7)" in printed
    assert not silent(25, 9, 30)  # its process has just started, perhaps again
    assert not silent(9, 20, 30)
    assert silent(25, 20, 9) != begun
    for waiting in ("PENDING", "CONFIGURING", "COMPLETING"):
        queue["7"] = waiting
        assert not see(tmp_path, planned)[0].silence
    queue["7"] = "RUNNING"
    write_lease(run)
    assert not see(tmp_path, planned)[0].silence


FIRST, SECOND, THIRD = (f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3))


def two_runs_of_an_ended_job(tmp_path: Path) -> tuple[list[PlannedRun], list[Path]]:
    """Return the runs of the jobs 7_0 and 7_1, and the logs of these, which end with an error."""
    planned = plan(tmp_path, 2)
    arrays = one_array(tmp_path, planned, "7")
    sweep = write_sweep(tmp_path, planned, cluster="slurm", arrays=arrays, launched=FIRST)
    logs = [sweep.path / "0001" / f"7_{element}_0_log.err" for element in (0, 1)]
    for log in logs:
        log.write_text("error: of the job\n")
    return planned, logs


@pytest.mark.parametrize(
    ("slurm_state", "job", "log"),
    [
        (None, None, "log.txt"),
        ("PENDING", "7_0", "7_0_0_log.err"),  # of a machine whose clock is ahead
    ],
)
def test_a_later_launch_on_this_machine_counts(
    slurm_state: str | None, job: str | None, log: str, queue: dict[str, str], tmp_path: Path
) -> None:
    """Its log, not that of the job before it, says what became of the run."""
    planned, _ = two_runs_of_an_ended_job(tmp_path)
    assert see(tmp_path, planned)[0].message == "of the job"
    processes = [relative([run], tmp_path) for run in planned[:1]]
    write_sweep(tmp_path, planned, processes=processes, launched=SECOND)
    planned[0].directory.mkdir(parents=True)
    planned[0].log.write_text("error: of the process\n")
    if slurm_state is not None:
        queue["7_0"] = slurm_state
    view, other = see(tmp_path, planned)
    assert (view.job, view.log.name) == (job, log)
    assert other.job == "7_1"
    if slurm_state is None:
        assert (view.state, view.message) == ("failed", "of the process")
        queue["8_0"] = "PENDING"
        again = one_array(tmp_path, planned, "8")
        write_sweep(tmp_path, planned, cluster="slurm", arrays=again, launched=THIRD)
        assert [one.job for one in see(tmp_path, planned)] == ["8_0", "8_1"]


def test_a_launch_on_this_machine_that_was_stopped_early_leaves_runs_failed(
    queue: dict[str, str], tmp_path: Path
) -> None:
    """It had not started them: the logs of their jobs still say why they have failed."""
    planned, _ = two_runs_of_an_ended_job(tmp_path)
    write_status(planned[1], "INTERRUPTED", 100)
    planned[1].log.touch()  # of an earlier launch
    for file in planned[1].directory.iterdir():
        os.utime(file, (1, 1))
    processes = [relative([run], tmp_path) for run in planned]
    write_sweep(tmp_path, planned, processes=processes, launched=SECOND)
    found = [(view.state, view.message) for view in see(tmp_path, planned)]
    assert found == [("failed", "of the job")] * 2


def test_a_later_inline_launch_that_has_written_a_state_counts(
    queue: dict[str, str], tmp_path: Path
) -> None:
    planned, logs = two_runs_of_an_ended_job(tmp_path)
    os.utime(logs[0], (1, 1))
    processes = [relative(planned[:1], tmp_path)]
    write_sweep(tmp_path, planned, processes=processes, launched=SECOND)
    write_status(planned[0], "INTERRUPTED", 100)
    view, _ = see(tmp_path, planned)
    assert (view.job, view.state, view.message) == (None, "resumable", "")


def test_without_squeue_a_job_before_a_launch_on_this_machine_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = planned = plan(tmp_path, 1)
    one_job(tmp_path, planned, "7")
    write_sweep(tmp_path, planned, processes=[relative([run], tmp_path)], launched="2999")
    monkeypatch.setattr(run_states, "read_queue", lambda names: None)
    (view,) = see(tmp_path, planned)
    assert (view.state, view.job) == ("queued", "7")


def test_a_job_id_is_that_of_the_last_launch_with_it(queue: dict[str, str], tmp_path: Path) -> None:
    """After a new installation, SLURM begins with the first id again."""
    planned = plan(tmp_path, 2)
    for run, launched in zip(planned, (FIRST, SECOND), strict=True):
        arrays = one_array(tmp_path, [run], "7")
        write_sweep(tmp_path, [run], cluster="slurm", arrays=arrays, launched=launched)
    queue["7"] = "RUNNING"
    assert [view.state for view in see(tmp_path, planned)] == ["new", "running"]
