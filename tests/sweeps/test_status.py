"""Show, retry and cancel sweeps on this machine."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import cancel, retry, status
from sweeps.execution import launching
from sweeps.planning.options import SweepOptions
from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking.progress import print_summary
from sweeps.tracking.sweep_folder import SweepFolder, all_sweeps
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.processes import identity_of
from tdmpc2.runners.specs import make_offline_spec
from tests.sweeps.directories import plan, write_lease, write_status, write_sweep

BUDGET = 5_000


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Write a sweep in progress: one run each done, running, stale, failed, diverged and new."""
    planned = plan(tmp_path, 6)
    write_status(planned[0], "COMPLETED", BUDGET)
    write_status(planned[1], "RUNNING", 1_000, env_steps_per_second=10.0)
    write_lease(planned[1])
    write_status(planned[2], "RUNNING", 2_000, env_steps_per_second=99.0)
    write_status(planned[3], "FAILED", 500, message="OSError: disk", updated="2026-01-02")
    write_status(planned[4], "DIVERGED", 700, message="loss not finite", updated="2026-01-01")
    write_sweep(tmp_path, planned)
    return tmp_path


def show(runs: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = status.main([f"runs={runs}", *arguments])
    return code, capsys.readouterr().out


def test_a_full_disk_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that cannot write its status or log cannot say so itself."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        runs = plan(tmp_path, 1, env_steps=100)
        write_sweep(tmp_path, runs)
        runs[0].directory.mkdir(parents=True)
        runs[0].exit_code = 2
        status.main([f"runs={tmp_path}"])
        print_summary(runs, [None])
        printed = capsys.readouterr().out
        for folder in (tmp_path, runs[0].directory):
            assert f"no space left on the disk of {folder}: free some and launch" in printed
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_one_line_per_method_and_domain(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = show(runs, capsys)
    assert code == 1
    heading, row = (line.split() for line in printed.splitlines()[2:5:2])
    assert heading[:9] == [
        "method",
        "domain",
        "runs",
        "done",
        "diverged",
        "running",
        "failed",
        "stale",
        "new",
    ]
    assert row[:9] == ["tdmpc2", "toy", "6", "1", "1", "1", "1", "1", "1"]
    # Remaining env steps of the four runs that have not ended, at the speed of the running one.
    left = 4 * BUDGET - 1_000 - 2_000 - 500
    assert row[9:12] == [f"{100 * (1 - left / (6 * BUDGET)):.1f}", "%", "10"]
    assert row[12] == f"{left / 10 / 3600:.1f}"


def test_env_steps_and_updates_are_not_added_up(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each unit has its own table; sweeps of older versions record no unit and count env steps."""
    (old,) = (runs / "sweeps").glob("*/sweep.json")
    facts = json.loads(old.read_text())
    for row in facts["runs"]:
        del row["unit"]
    old.write_text(json.dumps(facts))
    spec = make_offline_spec("tdmpc2", "mt30", 1, "none", num_updates=1_000)
    several = PlannedRun(spec, spec.run_dir(runs), kind="mt30 5M")
    several.directory.mkdir(parents=True)
    stands = {"state": "RUNNING", "num_updates": 250, "message": "", "updates_per_second": 2.5}
    (several.directory / "status.json").write_text(json.dumps(stands))
    write_lease(several)
    write_sweep(runs, [several], suite="mt30")
    _, printed = show(runs, capsys, "list=true")
    lines = printed.splitlines()
    several_tasks, one_task = (line for line in lines if line.startswith(" tdmpc2"))
    assert one_task.split()[1:3] == ["toy", "6"]
    assert several_tasks.split() == ["tdmpc2", "mt30", "5M", "1", "1", "25.0", "%", "2.5", "0.1"]
    assert "env steps/s" in printed
    assert "updates/s" in printed
    assert "250 of 1,000 updates" in printed
    assert "2,000 of 5,000 env steps" in printed


def test_the_last_errors_with_their_logs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, printed = show(runs, capsys, "errors=2")
    lines = [line for line in printed.splitlines() if line.startswith(("failed", "diverged"))]
    assert [line.split(":")[0] for line in lines] == ["failed", "diverged"]
    assert "OSError: disk" in lines[0]
    assert "log.txt" in printed
    assert "1 more (errors=N shows more)" in printed


def test_every_run_on_request(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, printed = show(runs, capsys, "list=true")
    assert printed.count("/seed") >= 6
    assert "1,000 of 5,000" in printed


def test_jobs_after_the_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Older records do not state the purpose of the job that draws the figures."""
    write_sweep(tmp_path, plan(tmp_path, 1), figures="71")
    write_sweep(tmp_path, plan(tmp_path, 1), figures="72", purpose="decides")
    _, printed = show(tmp_path, capsys)
    line = "after all runs have ended: job 71 draws the figures, job 72 decides\n"
    assert line in printed


def test_status_opens_few_files(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only status, lease and log of each run are opened, no file that grows with the run."""
    opened = []
    real = builtins.open

    def spy(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr("io.open", spy)
    monkeypatch.setattr(builtins, "open", spy)
    status.main([f"runs={runs}"])
    inside = [path for path in opened if "/seed" in path]
    assert {Path(path).name for path in inside} <= {"status.json", "lease.json", "log.txt"}
    assert len(inside) <= 3 * 6


def test_status_does_not_load_torch() -> None:
    code = "import sys, sweeps.status; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_following_ends_when_nothing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = planned = plan(tmp_path, 1)
    write_status(run, "RUNNING", 10)
    write_lease(run)
    write_sweep(tmp_path, planned)
    monkeypatch.setattr(status.time, "sleep", lambda s: write_status(run, "COMPLETED", BUDGET))
    code, printed = show(tmp_path, capsys, "follow=true")
    assert code == 0
    assert "100.0 %" in printed


def test_sweeps_by_suite_and_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(runs, plan(runs, 2), suite="smoke")
    assert " 2 " in show(runs, capsys, "suite=smoke")[1]
    assert " 6 " in show(runs, capsys, "suite=tasks")[1]
    (name,) = [path.name for path in (runs / "sweeps").glob("smoke-*")]
    assert name in show(runs, capsys, f"sweep={name}")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite=mt30"], "suite=mt30: never launched"),
        (["sweep=nothing"], "sweep=nothing: no such sweep"),
        (["every=0"], "every=0.0: must lie in (0, 86_400]"),
        (["evry=1"], "did you mean 'every'?"),
    ],
)
def test_bad_arguments(runs: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        status.main([f"runs={runs}", *arguments])
    assert message in str(refused.value)


@pytest.mark.parametrize("command", [status, retry, cancel])
def test_without_a_sweep(command: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sweep found"):
        command.main([f"runs={tmp_path}"])


@pytest.mark.parametrize("command", [status, retry, cancel])
def test_help(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    assert cli.command(command.main, command.usage) == 0


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_a_retry_launches_what_has_failed_with_the_same_request(
    of_0_4_0: bool,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if of_0_4_0:  # its sweeps have the arguments of their last launch
        (file,) = (runs / "sweeps").glob("*/sweep.json")
        facts = json.loads(file.read_text())
        del facts["request"]
        former = ["tasks=toy-pointmass", "seeds=6", "runs=/moved", "cluster=local"]
        file.write_text(json.dumps({"words": former, **facts}))
    started: list[Any] = []
    monkeypatch.setattr(
        launching.local_pool, "run_all", lambda groups, *a, **k: started.extend(groups)
    )
    monkeypatch.setattr(launching, "measure_reference_scores", lambda *a, **k: {})
    retry.main([f"runs={runs}", "max_parallel=1"])
    printed = capsys.readouterr().out
    assert "1 failed" in printed
    assert "1 to do, 1 at a time" in printed
    assert [[run.spec.seed for run in group] for group in started] == [[4]]


def launched_with(runs: Path, given: list[str] | dict[str, dict[str, Any]]) -> SweepFolder:
    """Return the only sweep, with other arguments: entries of its request, or those of 0.4.0."""
    (file,) = (runs / "sweeps").glob("*/sweep.json")
    facts = json.loads(file.read_text())
    if isinstance(given, list):
        del facts["request"]
        facts["words"] = ["tasks=toy-pointmass", "seeds=6", *given]
    else:
        for part, values in given.items():
            facts["request"][part] |= values
    file.write_text(json.dumps(facts))
    (folder,) = all_sweeps(runs)
    return folder


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_a_retry_on_this_machine_omits_the_options_of_slurm_jobs(
    of_0_4_0: bool, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_before = ["partition=gpu", "mem_gb=8"]
    request = {"sweep": {"cluster": "slurm", "partition": "gpu", "mem_gb": 8}}
    folder = launched_with(runs, as_before if of_0_4_0 else request)
    again = retry.again(folder, {"cluster": "local"})
    assert again.sweep == replace(
        SweepOptions(tasks="toy-pointmass", seeds="6"), cluster="local", only="failed"
    )
    line = "cluster=local: without partition=gpu mem_gb=8, which were for SLURM jobs\n"
    assert capsys.readouterr().out == line
    assert retry.again(folder, {"mem_gb": "9"}).sweep.mem_gb == 9
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="mem_gb=9: applies to SLURM jobs only"):
        retry.main([f"runs={runs}", "cluster=local", "mem_gb=9"])


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_a_retry_drops_the_newest_checkpoint_only_if_asked_again(
    of_0_4_0: bool, runs: Path
) -> None:
    as_before = ["checkpoint=previous", "eval_every=50"]
    request = {"given": {"checkpoint": "previous", "eval_every": 50}}
    folder = launched_with(runs, as_before if of_0_4_0 else request)
    how = retry.again(folder, {}).how
    assert (how.checkpoint, how.eval_every) == ("latest", 50)
    assert retry.again(folder, {"checkpoint": "previous"}).how.checkpoint == "previous"


def test_a_launch_of_this_machine_is_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write_sweep(tmp_path, plan(tmp_path, 1), **identity_of(sleeper.pid))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert f"process {sleeper.pid} is stopping its runs" in capsys.readouterr().out
    assert sleeper.wait() == -signal.SIGTERM


def test_another_process_of_the_same_number_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path, plan(tmp_path, 1), **{**identity_of(), "started_ticks": 1})
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert "nothing is running or queued" in capsys.readouterr().out
