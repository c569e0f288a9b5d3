"""What SLURM jobs of a sweep do when they are started, and started again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.execution import job
from sweeps.execution.job import TrainingJob
from sweeps.execution.process_file import write_file
from tests.sweeps.directories import plan, write_lease


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


FAILING = """#!/bin/sh
echo "$@" >> {asked}
[ $(wc -l < {asked}) -gt {failures} ] && exit 0
echo 'slurm_requeue error: {message}' >&2
exit 1
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which `scontrol` writes its arguments; it has no pauses between requests."""
    (tmp_path / "bin").mkdir()
    squeue(tmp_path / "bin", "RUNNING None")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(job, "RETRY_SECONDS", 0.0)
    return tmp_path / "bin" / "asked"


def squeue(folder: Path, state: str) -> None:
    """Write a `squeue` that knows the state of a job, and the reason for it."""
    (folder / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    (folder / "squeue").chmod(0o755)


def scontrol(asked: Path, failures: int, message: str) -> None:
    """Write an `scontrol` that fails some times before it accepts."""
    program = asked.with_name("scontrol")
    program.write_text(FAILING.format(asked=asked, failures=failures, message=message))
    program.chmod(0o755)


def test_a_requeue_that_slurm_does_not_answer_is_repeated(asked: Path) -> None:
    scontrol(asked, 2, "Unable to contact slurm controller (connect failure)")
    job.requeue("7_1")
    assert asked.read_text(encoding="utf-8") == "requeue 7_1\n" * 3


def test_a_job_that_another_process_has_requeued_is_left_alone(
    asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scontrol(asked, 9, "Job is pending execution")
    job.requeue("7_1")
    assert asked.read_text(encoding="utf-8") == "requeue 7_1\n"
    assert "scontrol requeue 7_1: slurm_requeue error: Job is pend" in capsys.readouterr().err


def test_a_requeue_ends_in_time(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without `scontrol`, or with one that hangs."""
    monkeypatch.setattr(job, "REQUEUE_SECONDS", 0.0)
    scontrol(asked, 9, "no controller")
    job.requeue("7")
    assert asked.read_text(encoding="utf-8") == "requeue 7\n"
    monkeypatch.setattr(job, "ANSWER_SECONDS", 0.2)
    asked.with_name("scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    job.requeue("7")
    assert "timed out after 0.2 seconds" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(asked.parent.with_name("none")))
    job.requeue("7")
    assert "No such file or directory: 'scontrol'" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_does_not_prevent_the_requeue(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scontrol(asked, 0, "")
    monkeypatch.setattr(job.submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="7_1"))
    files = [tmp_path / "own.json", tmp_path / "missing.json"]
    with pytest.raises(SystemExit) as ended:
        TrainingJob(files, tmp_path)._requeue(0)
    assert ended.value.code == -1
    assert asked.read_text(encoding="utf-8") == "requeue 7_1\n"
    printed = capsys.readouterr().err
    assert "not waiting for the other processes (UserError: " in printed
    assert not printed.startswith("error: ")  # which would count as the reason of a failure


@pytest.mark.parametrize(
    ("state", "requeued"),
    [("COMPLETING TimeLimit", True), ("COMPLETING None", False), ("", True)],
)
def test_only_a_time_limit_requeues_a_job_that_slurm_is_ending(
    state: str, requeued: bool, asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM would accept the requeue of a job that a user has cancelled."""
    scontrol(asked, 0, "")
    squeue(asked.parent, state)
    monkeypatch.setattr(job.submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="7_1"))
    with pytest.raises(SystemExit):
        TrainingJob([tmp_path / "own.json"], tmp_path)._requeue(0)
    assert asked.exists() == requeued


@pytest.mark.parametrize(("holder", "waits"), [("7", True), ("999", False), (None, False)])
def test_a_run_that_was_started_again_in_another_job_is_not_waited_for(
    holder: str | None, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path, 2)
    files = [write_file(tmp_path, i, [run], {"runs": tmp_path}) for i, run in enumerate(planned, 1)]
    write_lease(planned[1], slurm_job=holder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 60.0 * len(slept), sleep=slept.append)
    monkeypatch.setattr(job, "time", clock)
    TrainingJob(files, tmp_path)._wait_for_others(0)
    assert bool(slept) == waits


STOPPED_JOB = """
import signal
from pathlib import Path
from types import SimpleNamespace

from sweeps.execution import job
from tdmpc2.common.system.errors import StoppedError

class Stopped(job.TrainingJob):
    def _train(self, file):
        error = StoppedError("stopped")
        error.signal = signal.SIGUSR2
        raise error

job.code_snapshot.verify = lambda code: None
job.submitit.JobEnvironment = lambda: SimpleNamespace(job_id="7_1", global_rank=0)
Stopped([Path("missing.json")], Path())()
"""


def test_a_full_disk_does_not_prevent_the_requeue(asked: Path) -> None:
    """Messages of the job go to its log."""
    scontrol(asked, 0, "")
    with open("/dev/full", "wb") as full:
        subprocess.run([sys.executable, "-c", STOPPED_JOB], stdout=full, stderr=full)
    assert asked.read_text(encoding="utf-8") == "requeue 7_1\n"
