"""Blocked runs, which cannot start on this machine: planned, listed with a command, left out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ablations import run as ablations
from sweeps import launch, retry, status
from sweeps.execution import slurm_queries
from sweeps.tracking.progress import describe_blocked, duration
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.tasks import TASKS, get_suite, get_task
from tdmpc2.runners.registry import METHODS
from tests.runs import TINY, snapshot
from tests.test_architecture import ROOT

FETCH = "python -m tdmpc2.envs.assets fetch"
SETTINGS = [f"{key}={value}" for key, value in TINY.items() if key != "task"]
MIXED = ["tasks=toy-pointmass,pick-ycb", "seeds=1", "cluster=local", *SETTINGS]


@pytest.fixture(autouse=True)
def _no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a fresh installation without object models and without SLURM."""
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(slurm_queries, "choose", lambda _: "local")


def test_the_whole_reproduction_is_planned_without_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["suite=all104", "seeds=3", f"runs={tmp_path / 'runs'}"]
    assert launch.main(arguments) == launch.ASKS_FIRST
    printed = capsys.readouterr().out
    runs = 3 * len(METHODS)  # of a task
    number, blocked = runs * len(get_suite("all104")), runs * 2
    counts = f"{blocked} blocked, {number - blocked:,} to do"
    assert f"{number:,} runs, 0 finished already, {counts}" in printed
    assert f"{blocked} runs cannot start or continue yet:" in printed
    for task, kind in (("pick-ycb", "ycb"), ("turn-faucet", "faucet")):
        (line,) = (line for line in printed.splitlines() if f"{runs} runs of {task}: " in line)
        assert f"`{FETCH} {kind}`" in line
    assert "years on one core" in printed
    assert "days on" in printed
    assert "GPUs" in printed
    assert "Add yes=true" in printed
    assert not (tmp_path / "runs").exists()
    assert launch.main([*arguments, "dry_run=true"]) == 0


def test_an_ablation_is_planned_without_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--no-simnorm", f"runs={tmp_path / 'runs'}"]
    assert ablations.main(arguments) == launch.ASKS_FIRST
    printed = capsys.readouterr().out
    assert "18 runs, 0 finished already, 6 blocked, 12 to do" in printed
    assert "6 runs of pick-ycb: official ycb models are required" in printed
    assert f"`{FETCH} ycb`" in printed
    assert "Add --yes" in printed
    assert not (tmp_path / "runs").exists()


def test_an_ablation_of_which_nothing_can_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--no-simnorm", "--tasks", "pick-ycb", "--yes", f"runs={tmp_path / 'runs'}"]
    assert ablations.main(arguments) == launch.LEFT_OUT
    assert "No report yet: " in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_the_others_start_once_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    arguments = [*MIXED, f"runs={runs}"]
    assert launch.main(arguments) == launch.ASKS_FIRST
    assert "1 of 2 runs cannot start. Add yes=true to start the others." in capsys.readouterr().out
    assert not runs.exists()
    for _ in range(2):  # the second launch finds nothing to start and prints the same lines
        assert launch.main([*arguments, "yes=true"]) == launch.LEFT_OUT
        printed = capsys.readouterr().out
        assert printed.count(f"`{FETCH} ycb`") == 2  # with the plan, and at the end
        assert printed.splitlines()[-2].startswith("1 of 2 runs were left out")
        assert "NOT STARTED" not in printed
    assert [path.parent.parent.name for path in runs.rglob("eval.csv")] == ["toy-pointmass"]
    assert status.main([f"runs={runs}"]) == 0
    printed = capsys.readouterr().out
    assert "blocked" in printed
    assert f"{FETCH} ycb" in " ".join(printed.split())
    assert retry.main([f"runs={runs}"]) == 0  # nothing has failed


def test_a_failure_counts_more_than_what_was_left_out(tmp_path: Path) -> None:
    arguments = [*MIXED, f"runs={tmp_path}", "yes=true", "buffer_size=10"]
    assert launch.main(arguments) == 1


def test_nothing_can_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tasks=pick-ycb,turn-faucet", "seeds=2", f"runs={tmp_path / 'runs'}"]
    assert launch.main(arguments) == launch.LEFT_OUT
    assert "4 of 4 runs were left out" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_runs_start_when_their_models_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tasks=pick-ycb", "seeds=1", f"runs={tmp_path}", "dry_run=true"]
    assert launch.main([*arguments, "assets=official,standin"]) == 0
    assert "blocked" not in capsys.readouterr().out


def test_runs_that_would_be_refused_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Launch and status say of a run that it continues only if the launch would not be refused."""
    runs = tmp_path / "runs"
    first = ["tasks=toy-pointmass", "cluster=local", *SETTINGS, f"runs={runs}"]

    def started(*changes: str) -> tuple[int, str]:
        known = {key: value for key, _, value in (one.partition("=") for one in first)}
        known |= dict(one.split("=") for one in changes)
        code = launch.main([f"{key}={value}" for key, value in known.items()])
        return code, capsys.readouterr().out

    def shown() -> str:
        status.main([f"runs={runs}", "list=true"])
        return " ".join(capsys.readouterr().out.split())

    assert started("seeds=1", "keep_replay=true")[0] == 0
    assert started("seeds=2,")[0] == 0
    before = snapshot(runs)
    for change, message in (
        ("eval_every=50", "was started with eval_every=100, not 50; use that value"),
        ("keep_replay=false", "was run with keep_replay=true; use keep_replay=true to continue it"),
    ):
        code, printed = started("seeds=1", "env_steps=250", change)
        assert (code, message in printed) == (launch.LEFT_OUT, True)
    cannot = "finished at 200 env steps without keep_replay=true, so it cannot continue to 250"
    code, printed = started("seeds=2", "env_steps=250", "keep_replay=true")
    assert code == launch.ASKS_FIRST
    assert f"1 run of toy-pointmass: {cannot}" in printed
    assert snapshot(runs) == before
    code, printed = started("seeds=2", "env_steps=250", "keep_replay=true", "yes=true")
    assert code == launch.LEFT_OUT
    assert f"1 run of toy-pointmass: {cannot}" in shown()
    assert "launch again" not in shown()
    (completed,) = runs.rglob("seed1-*/status.json")
    completed.write_text(completed.read_text().replace(": 250,", ": 200,", 1))
    assert "completed a smaller budget: 1 run; launch again with keep_replay=true" in shown()


def test_a_damaged_set_blocks_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models" / "mani_skill2_ycb").mkdir(parents=True)
    (tmp_path / "models" / "mani_skill2_ycb" / "info_pick_v0.json").write_text("[")
    arguments = ["tasks=pick-ycb,lift-cube", "seeds=1", f"runs={tmp_path / 'runs'}"]
    assert launch.main(arguments) == launch.ASKS_FIRST
    assert "2 runs, 0 finished already, 1 blocked, 1 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("domain", "package"),
    [("myosuite", "myosuite"), ("dmcontrol", "dm_control"), ("maniskill2", "sapien")],
)
def test_a_missing_simulator_blocks_its_runs(
    domain: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == package else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    own = [task for task in TASKS.values() if task.domain == domain]
    assert all(f"needs {package}" in missing_requirement(task, "official") for task in own)
    assert missing_requirement(get_task("toy-pointmass"), "official") == ""
    arguments = [f"tasks={own[0].name},toy-pointmass", "seeds=2", f"runs={tmp_path / 'runs'}"]
    assert launch.main(arguments) == launch.ASKS_FIRST
    printed = capsys.readouterr().out
    assert "4 runs, 0 finished already, 2 blocked, 2 to do" in printed
    assert f"2 runs of {own[0].name}: task '{own[0].name}' needs {package}" in printed


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0 min"),
        (0.001, "1 min"),
        (0.5, "30 min"),
        (1.0, "1.0 h"),
        (9.97, "10 h"),
        (47.0, "47 h"),
        (49.0, "2.0 days"),
        (24.0 * 100, "100 days"),
        (24.0 * 731, "2.0 years"),
        (1_099_345.0, "125 years"),
    ],
)
def test_durations_are_readable(hours: float, text: str) -> None:
    assert duration(hours) == text


def test_the_plan_in_the_documentation_has_this_heading() -> None:
    heading, _ = describe_blocked([("pick-ycb", "")] * 24)
    assert f"\n{heading}\n" in (ROOT / "docs" / "clusters.md").read_text()
