"""Run directories: what is left of a run that does not begin."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from tdmpc2.common.run.lock import LeaseLostError
from tdmpc2.common.run.run_directory import held
from tdmpc2.common.system.errors import UserError


def fill(directory: Path) -> None:
    """Write what a run writes before it begins."""
    (directory / "provenance").mkdir(exist_ok=True)
    (directory / "provenance" / "a.diff").write_text("+")
    for name in ("attempts.json", "numeric.json", "spec.json"):
        (directory / name).write_text("{}")


def refused(directory: Path, *, state: bool = False) -> None:
    """Hold a run directory until an error, after which the run has a state or not."""
    with contextlib.suppress(UserError), held(directory):
        fill(directory)
        if state:
            (directory / "status.json").write_text("{}")
        raise UserError("refused")


def test_nothing_is_left_of_a_refused_run(tmp_path: Path) -> None:
    refused(tmp_path / "runs" / "tdmpc2" / "default" / "seed1")
    assert not list(tmp_path.iterdir())


def test_folders_and_files_of_others_stay(tmp_path: Path) -> None:
    """A launch has created the folder, and its log says what was refused."""
    directory = tmp_path / "runs" / "seed1"
    directory.mkdir(parents=True)
    (directory / "log.txt").write_text("error: refused")
    (directory.parent / "seed2").mkdir()
    refused(directory)
    assert [path.name for path in directory.iterdir()] == ["log.txt"]
    refused(directory.parent / "seed3")
    assert sorted(path.name for path in directory.parent.iterdir()) == ["seed1", "seed2"]


def test_a_run_that_has_begun_stays(tmp_path: Path) -> None:
    """At this start, or at an earlier one."""
    refused(tmp_path / "a", state=True)
    refused(tmp_path / "a")
    names = ["attempts.json", "numeric.json", "provenance", "spec.json", "status.json"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names


def test_without_an_error_everything_stays(tmp_path: Path) -> None:
    with held(tmp_path / "used"):
        fill(tmp_path / "used")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    assert (tmp_path / "used" / "spec.json").exists()


def test_the_directory_of_another_process_is_left_alone(tmp_path: Path) -> None:
    """Another process has taken the lease over, for example after a suspension."""
    with contextlib.suppress(LeaseLostError), held(tmp_path / "a") as lease:
        fill(tmp_path / "a")
        lease.path.write_text(json.dumps({"token": "another"}))
        lease.verify()
    assert lease.lost
    assert (tmp_path / "a" / "spec.json").exists()


def test_a_directory_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"cannot be created.*another folder with runs="
    with pytest.raises(UserError, match=message), held(tmp_path / "file" / "seed1"):
        pass
    assert os.listdir(tmp_path) == ["file"]
