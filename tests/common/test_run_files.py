"""The files of a run directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tdmpc2.common.run import run_files
from tdmpc2.common.run.run_files import CsvRecord, RunFiles, format_value, read_status
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError

SPEC = RunSpec("tdmpc2", "toy-pointmass", 1, 500, overrides=(("num_q", 2),), variant="v")


@pytest.fixture
def records(tmp_path: Path) -> RunFiles:
    return RunFiles(tmp_path, SPEC, {"domain": "toy", "metric": "return"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.33333333"),
        (5.0, "5"),
        (1e-9, "1e-09"),
        (float("nan"), "nan"),
        (7, "7"),
        (123_456_789_012, "123456789012"),
        ("x", "x"),
    ],
)
def test_numbers_are_written_one_way(value: float | int | str, text: str) -> None:
    assert format_value(value) == text


def test_the_header_comes_with_the_first_line(tmp_path: Path) -> None:
    record = CsvRecord(tmp_path / "x.csv")
    assert record.mark()["size"] == 0
    record.append({"a": 1, "b": 0.5})
    record.append({"b": 1.5, "a": 2})
    assert record.path.read_text() == "a,b\n1,0.5\n2,1.5\n"
    assert record.mark()["size"] == len("a,b\n1,0.5\n2,1.5\n")


def test_columns_stay_those_of_the_file(tmp_path: Path) -> None:
    CsvRecord(tmp_path / "x.csv").append({"a": 1, "b": 2})
    reopened = CsvRecord(tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"x\.csv: only some of its lines would have .* b, c; "):
        reopened.append({"a": 1, "c": 2})
    reopened.append({"b": 4, "a": 3})
    assert reopened.path.read_text() == "a,b\n1,2\n3,4\n"


def test_a_line_is_on_the_file_at_once(tmp_path: Path) -> None:
    record = CsvRecord(tmp_path / "x.csv")
    record.append({"a": 1})
    assert record.path.read_bytes() == b"a\n1\n"


def test_cutting_back_forgets_what_came_later(records: RunFiles) -> None:
    records.csv["eval"].append({"a": 1})
    marks = records.marks()
    assert {name: mark["size"] for name, mark in marks.items()} == {
        "eval": 4,
        "train": 0,
        "timing": 0,
    }
    records.csv["eval"].append({"a": 2})
    records.csv["train"].append({"loss": 0.5})
    with open(records.csv["timing"].path, "w", encoding="utf-8") as file:
        file.write("env_st")  # an incomplete header

    reopened = RunFiles(records.directory, SPEC, {})
    reopened.cut_back(marks)
    assert reopened.csv["eval"].path.read_text() == "a\n1\n"
    assert not reopened.csv["train"].path.exists()
    assert not reopened.csv["timing"].path.exists()
    reopened.csv["train"].append({"other": 1})
    reopened.csv["timing"].append({"env_step": 1})
    assert reopened.csv["timing"].path.read_text() == "env_step\n1\n"


def test_cutting_back_to_nothing(records: RunFiles) -> None:
    records.csv["eval"].append({"a": 1})
    records.cut_back({})
    assert list(records.directory.iterdir()) == []
    records.csv["eval"].append({"b": 1})
    assert records.csv["eval"].path.read_text() == "b\n1\n"


def test_a_record_shorter_than_the_checkpoint_knows_is_refused(records: RunFiles) -> None:
    records.csv["eval"].append({"a": 1})
    with pytest.raises(UserError, match=r"eval\.csv: 4 bytes, but the checkpoint recorded 9"):
        records.cut_back({"eval": 9})
    assert records.csv["eval"].path.read_text() == "a\n1\n"


def test_a_line_that_has_changed_since_the_checkpoint_is_refused(records: RunFiles) -> None:
    path = records.csv["eval"].path
    for value in (1, 2):
        records.csv["eval"].append({"env_step": value, "episode_return": 10.5})
    marks = records.marks()
    records.csv["eval"].append({"env_step": 3, "episode_return": 11.5})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1,10.5", b"1,90.5"))
    with pytest.raises(UserError, match=r"eval\.csv: its lines before the checkpoint have changed"):
        records.cut_back(marks)
    assert path.read_bytes() == content.replace(b"1,10.5", b"1,90.5")
    path.write_bytes(content.replace(b"3,11.5", b"3,99.5"))  # a line that is redone
    records.cut_back(marks)
    assert path.read_text() == "env_step,episode_return\n1,10.5\n2,10.5\n"


def test_a_checkpoint_of_0_4_0_has_sizes_only(records: RunFiles) -> None:
    for value in (1, 2):
        records.csv["eval"].append({"a": value})
    records.cut_back({"eval": 4})
    assert records.csv["eval"].path.read_text() == "a\n1\n"


def test_spec_file(records: RunFiles) -> None:
    records.write_spec({"eval_every": 100})
    assert read_json(records.directory / "spec.json") == {
        "format": 1,
        "method": "tdmpc2",
        "variant": "v",
        "task": "toy-pointmass",
        "domain": "toy",
        "metric": "return",
        "obs": "state",
        "assets": None,
        "protocol": {},
        "seed": 1,
        "budget": 500,
        "budget_unit": "env_steps",
        "overrides": {"num_q": 2},
        "identity": SPEC.identity,
        "eval_every": 100,
    }


def test_status_file(records: RunFiles) -> None:
    assert read_status(records.directory) is None
    records.set_state("DIVERGED", 250, "loss not finite", train_return=3.5)
    status = read_status(records.directory)
    assert status is not None
    assert {key: status[key] for key in ("state", "env_step", "env_steps", "message")} == {
        "state": "DIVERGED",
        "env_step": 250,
        "env_steps": 500,
        "message": "loss not finite",
    }
    assert status["train_return"] == 3.5


def test_progress_does_not_rewrite_the_status_at_every_episode(records: RunFiles) -> None:
    records.set_state("RUNNING", 100)
    records.set_progress(150)
    status = read_status(records.directory)
    assert status is not None
    assert status["env_step"] == 100


def test_progress_that_cannot_be_written_does_not_end_a_run(
    records: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a while; the next status is written again."""
    records.set_state("RUNNING", 100)
    monkeypatch.setattr(run_files, "STATUS_SECONDS", 0)

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "write_json", full)
        records.set_progress(150)
        with pytest.raises(OSError, match="No space left"):
            records.set_state("COMPLETED", 500)
    known = read_status(records.directory)
    assert known is not None
    assert known["env_step"] == 100
    records.set_progress(200)
    known = read_status(records.directory)
    assert known is not None
    assert known["env_step"] == 200
