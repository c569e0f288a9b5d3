"""Checks of a run directory before a run starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.run.resume_checks import (
    RunResult,
    existing_outcome,
    new_attempt,
    record_attempt,
)
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import RunOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

SPEC = RunSpec("tdmpc2", "toy-pointmass", 1, 500)
FIXED = {"eval_every": 100, "eval_episodes": 10}


def outcome(
    directory: Path, budget: int = 500, *, keep_replay: bool = False, **fixed: int
) -> RunResult | None:
    spec = dataclasses.replace(SPEC, budget=budget)
    options = RunOptions(keep_replay=keep_replay)
    return existing_outcome(directory, spec, {**FIXED, **fixed}, options)


def leave(directory: Path, state: Any, env_step: int, *, keep_replay: bool = False) -> None:
    """Write the files of a run with this state and progress, and the folder of a checkpoint."""
    (directory / "checkpoints" / f"{env_step:012}").mkdir(parents=True)
    records = RunFiles(directory, SPEC, {})
    records.write_spec({**FIXED, "keep_replay": keep_replay})
    records.set_state(state, env_step, "why")


def test_an_empty_or_missing_folder_is_free(tmp_path: Path) -> None:
    assert outcome(tmp_path) is None
    assert outcome(tmp_path / "missing") is None


@pytest.mark.parametrize("state", ["RUNNING", "INTERRUPTED", "FAILED", "CANCELLED"])
def test_unfinished_runs_go_on(state: str, tmp_path: Path) -> None:
    leave(tmp_path, state, 300)
    assert outcome(tmp_path) is None
    assert outcome(tmp_path, 1000) is None


@pytest.mark.parametrize("budget", [300, 500, 520])
def test_finished_runs_are_left_alone(budget: int, tmp_path: Path) -> None:
    """The last episode may end after the budget, here at 520."""
    leave(tmp_path, "COMPLETED", 520)
    assert outcome(tmp_path, budget) == RunResult(tmp_path, "COMPLETED", 520, "already finished")


@pytest.mark.parametrize("budget", [500, 1000])
def test_diverged_runs_are_never_retried(budget: int, tmp_path: Path) -> None:
    leave(tmp_path, "DIVERGED", 300, keep_replay=True)
    record = RunResult(tmp_path, "DIVERGED", 300, "why")
    assert outcome(tmp_path, budget, keep_replay=True) == record


@pytest.mark.parametrize(
    ("kept", "keep", "message"),
    [
        (False, False, "finished at 500 env steps without keep_replay=true, so it cannot continue"),
        (False, True, "finished at 500 env steps without keep_replay=true, so it cannot continue"),
        (True, False, "was run with keep_replay=true; use keep_replay=true to continue it"),
        (True, True, None),
    ],
)
def test_a_raised_budget_needs_the_replay(
    kept: bool, keep: bool, message: str | None, tmp_path: Path
) -> None:
    leave(tmp_path, "COMPLETED", 500, keep_replay=kept)
    if message is None:
        assert outcome(tmp_path, 1000, keep_replay=keep) is None
    else:
        with pytest.raises(UserError, match=message):
            outcome(tmp_path, 1000, keep_replay=keep)


def test_a_completed_run_without_its_checkpoint_does_not_start_again(tmp_path: Path) -> None:
    """It would remove the records of what it has finished."""
    leave(tmp_path, "COMPLETED", 500, keep_replay=True)
    (tmp_path / "checkpoints" / f"{500:012}").rmdir()
    assert outcome(tmp_path, 500, keep_replay=True) is not None
    message = (
        "finished at 500 env steps, but has no checkpoint left, so it cannot continue to 1,000"
    )
    with pytest.raises(UserError, match=message):
        outcome(tmp_path, 1000, keep_replay=True)


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_evaluation_settings_stay(state: str, tmp_path: Path) -> None:
    leave(tmp_path, state, 500)
    with pytest.raises(UserError, match="was started with eval_every=100, not 50; use that value"):
        outcome(tmp_path, eval_every=50)


def test_another_run_is_refused(tmp_path: Path) -> None:
    leave(tmp_path, "RUNNING", 300)
    other = dataclasses.replace(SPEC, seed=2)
    with pytest.raises(
        UserError, match=f"a run with other settings .identity {SPEC.identity}, not"
    ):
        existing_outcome(tmp_path, other, FIXED, RunOptions())


def attempt(directory: Path, *, allow_change: bool) -> dict[str, Any]:
    found = new_attempt(directory, simulators=["mujoco"], allow_change=allow_change)
    record_attempt(directory, found)
    return found


def test_attempts_are_counted_and_tied_to_a_commit(tmp_path: Path) -> None:
    first = attempt(tmp_path, allow_change=False)
    assert attempt(tmp_path, allow_change=False) == first
    file = tmp_path / "attempts.json"
    assert read_json(file) == [first, first]

    write_json(file, [first, {**first, "commit": "other"}])
    before = file.read_bytes()
    with pytest.raises(
        UserError, match=r"was run with commit other, this is .*allow_commit_change"
    ):
        attempt(tmp_path, allow_change=False)
    assert file.read_bytes() == before
    attempt(tmp_path, allow_change=True)
    assert [a["commit"] for a in read_json(file)] == [first["commit"], "other", first["commit"]]
