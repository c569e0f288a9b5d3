"""Sizes of job arrays, limits on concurrent jobs, time limits, and the choice of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.execution.job import ModuleJob
from sweeps.execution.slurm import Resources, in_arrays, shares, submit
from sweeps.execution.slurm_jobs import extra_options
from sweeps.execution.slurm_queries import choose, jobs_left, minutes_of, preemption_of
from tdmpc2.common.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None),
        ("5:00", 5),
        ("5:30", 6),
        ("1:00:00", 60),
        ("2-12:30:00", 2 * 1440 + 750),
        ("n/a", None),
    ],
)
def test_time_limits(text: str, minutes: int | None) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("jobs", "size", "left", "arrays"),
    [
        (1248, 1001, None, [1001, 247]),
        (1001, 1001, None, [1001]),
        (1248, 10_001, None, [1248]),
        (1248, 1001, 500, [500]),
        (1248, 1001, 0, []),
        (0, 1001, None, []),
    ],
)
def test_arrays_as_large_as_they_may_be(
    jobs: int, size: int, left: int | None, arrays: list[int]
) -> None:
    assert in_arrays(jobs, size, left) == arrays


@pytest.mark.parametrize(
    ("limit", "sizes", "each"),
    [
        (None, [1001, 247], [1001, 247]),
        (100, [1001, 247], [81, 19]),
        (5, [4, 4, 1], [2, 2, 1]),
        (1, [1001, 247], [1, 1]),  # an array runs at least one
        (5, [], []),
    ],
)
def test_a_limit_is_shared_between_arrays(
    limit: int | None, sizes: list[int], each: list[int]
) -> None:
    assert shares(limit, sizes) == each


def test_options_of_sbatch() -> None:
    assert extra_options(None) == {}
    assert extra_options("account=lab,--qos=low, hold") == {
        "account": "lab",
        "qos": "low",
        "hold": True,
    }
    with pytest.raises(UserError, match=r"mem is set by mem_gb="):
        extra_options("mem=3G")


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose("auto") == "local"
    assert choose("inline") == "inline"
    with pytest.raises(UserError, match="sbatch not found"):
        choose("slurm")


def test_slurm_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sinfo: error: no controller' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for wanted in ("auto", "slurm"):  # `auto` does not train on the login node instead
        with pytest.raises(UserError, match=r"SLURM does not respond \(sinfo: no controller\)"):
            choose(wanted)
    assert choose("local") == "local"


def test_a_machine_that_belongs_to_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM's packages are installed, but nothing configures them."""
    message = "sinfo: fatal: Could not establish a configuration source"
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{message}' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert choose("auto") == "local"
    assert "not configured: training on this machine" in capsys.readouterr().out
    with pytest.raises(UserError, match="SLURM does not respond"):
        choose("slurm")


@pytest.mark.parametrize(
    ("config", "partition", "mode"),
    [
        ("PreemptMode             = OFF", "", "OFF"),
        ("PreemptMode             = CANCEL", "", "CANCEL"),
        ("PreemptMode = REQUEUE", "PartitionName=p PreemptMode=CANCEL State=UP", "CANCEL"),
        ("PreemptMode = CANCEL", "PartitionName=p PreemptMode=OFF State=UP", "OFF"),
        ("", "", "OFF"),
    ],
)
def test_what_happens_to_preempted_jobs(
    config: str, partition: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"#!/bin/sh\n[ $2 = config ] && echo '{config}' || echo '{partition}'\n"
    (tmp_path / "scontrol").write_text(script)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert preemption_of("p" if partition else None) == mode


def test_a_submitted_job_does_not_end_when_one_of_its_processes_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defaults of a cluster, KillOnBadExit and WaitTime, would end the other runs."""
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho Submitted batch job 17\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    resources = Resources(partition=None, gpus=0, tasks=4, cpus=1, mem_gb=1, timeout_min=10)
    job = submit(
        [ModuleJob("module")],
        resources,
        tmp_path / "logs",
        name="name",
        code=tmp_path,
        at_once=1,
        comment="comment",
    )
    assert job == "17"
    script = (tmp_path / "logs" / "17_submission.sh").read_text()
    (command,) = (line for line in script.splitlines() if line.startswith("srun "))
    assert {"--kill-on-bad-exit=0", "--wait=0"} <= set(command.split())


@pytest.mark.parametrize(("code", "left"), [(0, 3), (1, None)])
def test_a_submit_limit_needs_an_answer_of_squeue(
    code: int, left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "sacctmgr": "echo 5",
        "squeue": f"echo '7_0 7_1'; echo 'squeue: error: no controller' >&2; exit {code}",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if left is not None:
        assert jobs_left() == left
        return
    with pytest.raises(UserError, match="squeue failed: no controller; try again"):
        jobs_left()
