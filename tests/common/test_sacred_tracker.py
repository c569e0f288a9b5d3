"""Sacred's record of every attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.run.sacred_tracker import Tracker, track


class StopError(Exception):
    """Stops a run."""


def attempt(directory: Path, body: Any) -> Any:
    return track(
        directory,
        "tdmpc2",
        {"task": "walker-walk", "seed": 3, "overrides": {"num_q": 2}},
        {"attempt": {"commit": "abc"}},
        body,
        interrupts=(StopError,),
    )


def read(directory: Path, number: int, name: str) -> Any:
    return json.loads((directory / str(number) / f"{name}.json").read_text())


def test_a_run_and_its_figures(tmp_path: Path) -> None:
    def body(tracker: Tracker) -> str:
        tracker.log(100, {"episode_return": 1.5, "num_episodes": 10})
        tracker.log(200, {"episode_return": 2.5, "num_episodes": 10})
        return "result"

    assert attempt(tmp_path, body) == "result"
    config = read(tmp_path, 1, "config")
    assert (config["task"], config["seed"], config["overrides"]) == (
        "walker-walk",
        3,
        {"num_q": 2},
    )
    assert read(tmp_path, 1, "info")["attempt"] == {"commit": "abc"}
    metrics = read(tmp_path, 1, "metrics")
    assert metrics["episode_return"]["steps"] == [100, 200]
    assert metrics["episode_return"]["values"] == [1.5, 2.5]
    run = read(tmp_path, 1, "run")
    assert (run["status"], run["experiment"]["name"]) == ("COMPLETED", "tdmpc2")
    assert not (tmp_path / "_sources").exists()  # the commit identifies the code


def test_attempts_are_numbered(tmp_path: Path) -> None:
    for _ in range(3):
        attempt(tmp_path, lambda tracker: None)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StopError("asked to"), "INTERRUPTED"),
        (KeyboardInterrupt(), "INTERRUPTED"),
        (ValueError("a bug"), "FAILED"),
    ],
)
def test_errors_are_recorded_and_come_out_as_they_were(
    error: BaseException, status: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(tracker: Tracker) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        attempt(tmp_path, body)
    assert caught.value is error
    assert error.__context__ is None
    assert read(tmp_path, 1, "run")["status"] == status
    assert capfd.readouterr() == ("", "")  # only the command prints errors


def test_what_is_said_is_recorded_and_still_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(tmp_path, lambda tracker: print("hello"))
    assert (tmp_path / "1" / "cout.txt").read_text() == "hello\n"


def test_an_incomplete_record_is_pointed_out(tmp_path: Path) -> None:
    def body(tracker: Tracker) -> str:
        folder = tmp_path / "1"
        (folder / "metrics.json").mkdir()  # now Sacred cannot write it
        tracker.log(100, {"episode_return": 1.5})
        return "result"

    with pytest.warns(UserWarning, match="Sacred's record in .* is incomplete"):
        assert attempt(tmp_path, body) == "result"
