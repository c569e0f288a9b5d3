"""Cache of run directories: what is cached, and when runs are read again."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from analysis.records import cache
from analysis.records.cache import CACHE_NAME
from analysis.records.load import Records, load
from tests.analysis.run_files import HEADER, eval_line, write_run
from tests.disk_errors import unreadable


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the run directories that are read from now on."""
    seen: list[str] = []
    read = cache._read

    def noted(directory):
        seen.append(directory.name)
        return read(directory)

    monkeypatch.setattr(cache, "_read", noted)
    return seen


def assert_equal(one: Records, other: Records) -> None:
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.runs, other.runs)
    assert one.problems == other.problems


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 1 / 3}, seed=1, tag="a", overrides={"num_q": 2})
    write_run(tmp_path, {0: 2.0}, seed=2, tag="b", state="FAILED", commit="abc")
    write_run(tmp_path, {}, seed=3, tag="c")
    write_run(tmp_path, {}, seed=4, tag="d", eval_csv=f"{HEADER}\n{eval_line(0, 7.0)}100,5")
    old = HEADER.replace("episode_success_ever,", "")
    write_run(tmp_path, {}, seed=5, tag="e", eval_csv=f"{old}\n0,0,12.5,0.0,0.5,500,10\n")
    (tmp_path / "tdmpc2" / "default" / "walker-walk" / "seed6-f").mkdir()
    return tmp_path


def test_what_is_remembered_is_what_was_read(runs, reads):
    first = load(runs)
    assert len(reads) == 6
    assert (runs / CACHE_NAME).exists()
    assert_equal(load(runs), first)
    assert len(reads) == 6
    assert len(first.problems) >= 4


def test_only_what_changed_is_read_again(runs, reads):
    load(runs)
    reads.clear()
    path = runs / "tdmpc2" / "default" / "walker-walk" / "seed2-b" / "eval.csv"
    path.write_text(path.read_text() + eval_line(1000, 50.0))
    write_run(runs, {0: 3.0}, seed=7, tag="g")
    records = load(runs)
    assert sorted(reads) == ["seed2-b", "seed7-g"]
    assert 50.0 in records.table["value"].to_numpy()
    reads.clear()
    os.remove(path)
    assert 50.0 not in load(runs).table["value"].to_numpy()
    assert reads == ["seed2-b"]


def test_a_run_that_was_removed_is_forgotten(runs, reads):
    load(runs)
    for file in (runs / "tdmpc2" / "default" / "walker-walk" / "seed1-a").iterdir():
        file.unlink()
    (runs / "tdmpc2" / "default" / "walker-walk" / "seed1-a").rmdir()
    assert 1 not in set(load(runs).runs["seed"])


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_a_cache_that_cannot_be_read_is_made_anew(runs, content):
    first = load(runs)
    if content is None:
        pd.DataFrame({"path": ["x"]}).to_parquet(runs / CACHE_NAME)
    else:
        (runs / CACHE_NAME).write_bytes(content)
    assert_equal(load(runs), first)


def test_another_reader_reads_again(runs, reads, monkeypatch):
    load(runs)
    reads.clear()
    monkeypatch.setattr(cache, "_version", lambda runs_dir: b"other")
    load(runs)
    assert len(reads) == 6


def test_a_moved_folder_is_read_again(runs, tmp_path, reads):
    load(runs)
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    os.rename(runs, moved)
    assert all(str(moved) in problem.where for problem in load(moved).problems)


def test_a_folder_that_cannot_be_written_is_only_read(runs, monkeypatch):
    def refuse(path, write):
        raise PermissionError(path)

    monkeypatch.setattr(cache, "write_atomic", refuse)
    assert len(load(runs).runs) == 5
    assert not (runs / CACHE_NAME).exists()


def test_an_empty_folder_gets_no_cache(tmp_path):
    load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_attempts_that_cannot_be_read_are_named_and_not_remembered(runs):
    """Their commits and versions are missing, perhaps because of a passing error."""
    (spec,) = runs.rglob("seed2-*/spec.json")
    path = spec.with_name("attempts.json")
    path.write_text('[{"commit": "f00"}]')
    with unreadable(path):
        (problem,) = (one for one in load(runs).problems if one.where == str(path))
        assert problem.what.startswith("cannot be read: [Errno 5] Input/output error")
    assert "f00" in set(load(runs).runs["commit"])
    assert not [one for one in load(runs).problems if one.where == str(path)]
