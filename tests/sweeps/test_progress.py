"""What the summary of a sweep says of runs that this launch has not trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.tracking.progress import ProgressDisplay, print_multitask_summary, print_summary
from tdmpc2.common.run.lock import Lease
from tests.sweeps.directories import plan


@pytest.mark.parametrize("multitask", [False, True])
def test_runs_that_another_process_trains_are_counted(
    multitask: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan(tmp_path, 3, env_steps=100)
    for run in runs:
        run.directory.mkdir(parents=True)
        run.status, run.must_learn = {"state": "RUNNING"}, None
    runs[2].started = True  # by this launch, which waits for it
    with Lease(runs[0].directory), Lease(runs[2].directory):
        code = print_multitask_summary(runs) if multitask else print_summary(runs, [None] * 3)
    assert code == 1
    assert "\n1 run not finished: trained by other processes" in capsys.readouterr().out


def test_the_exit_code_of_a_diverged_seed_is_no_failure_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan(tmp_path, 3, env_steps=100)
    for run, state, step in zip(
        runs, ("DIVERGED", "COMPLETED", "INTERRUPTED"), (50, 100, 50), strict=True
    ):
        run.status = {"state": state, "env_step": step}
        run.started, run.exit_code = True, 1
    with ProgressDisplay(runs) as display:
        display.update(runs)
    print_summary(runs, [None] * 3)
    printed = capsys.readouterr().out
    named = [line.partition("seed ")[2][:1] for line in printed.splitlines() if "exit code" in line]
    assert named == ["3", "3"]  # while they run, and in the summary


@pytest.mark.parametrize(("unit", "code"), [("env_steps", 0), ("env_steps", 1), ("num_updates", 1)])
def test_a_run_that_has_completed_a_smaller_budget_has_not_ended(
    unit: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process was refused, and its state is still that of the smaller budget."""
    (run,) = plan(tmp_path, 1, env_steps=100)
    key = {"env_steps": "env_step", "num_updates": "num_updates"}[unit]
    run.status, run.must_learn, run.exit_code = {"state": "COMPLETED", key: 100 - code}, None, code
    run.directory.mkdir(parents=True)
    columns = "env_step,episode_return,episode_return_sd,episode_success"
    (run.directory / "eval.csv").write_text(f"{columns}\n0,1.0,0.0,0.0\n")
    several = unit == "num_updates"
    assert (print_multitask_summary([run]) if several else print_summary([run], [None])) == code
    capsys.readouterr()
