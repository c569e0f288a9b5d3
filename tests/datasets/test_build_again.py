"""Builds that are killed, stopped by a full disk, or given a folder that is in use."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.data.build import build
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import BuildOptions
from tdmpc2.data.task_writer import TaskWriter
from tdmpc2.data.writer import DatasetWriter
from tests.datasets.helpers import TWO, episodes, exit_code_of, fake_run, four_runs, options
from tests.runs import snapshot


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of each of two tasks."""
    return four_runs(tmp_path / "runs")


def test_a_finished_dataset_is_never_overwritten(runs: Path, tmp_path: Path) -> None:
    build(options(tmp_path))
    before = snapshot(tmp_path / "d")
    with pytest.raises(UserError, match="contains a finished dataset, which is never overwritten"):
        build(options(tmp_path))
    assert snapshot(tmp_path / "d") == before


def test_nothing_else_is_overwritten(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        build(options(tmp_path))
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        build(options(tmp_path, out=tmp_path / "file"))


def kill_at(function: str, call: int, arguments: BuildOptions) -> int:
    """Build in a process that is killed before the n-th call of a function of the writer."""

    def body() -> None:
        cls: Any = TaskWriter if hasattr(TaskWriter, function) else DatasetWriter
        made, calls = getattr(cls, function), []

        def struck(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return made(*args, **kwargs)

        setattr(cls, function, struck)
        build(arguments)

    return exit_code_of(body)


@pytest.mark.parametrize(
    ("function", "call", "tasks_done"),
    [
        ("_append", 1, 0),
        ("_append", 6, 1),
        ("_close_shard", 2, 1),
        ("finish_task", 2, 1),
        ("finish", 1, 2),
        ("_entry", 2, 2),
    ],
)
def test_a_killed_build_goes_on(
    function: str, call: int, tasks_done: int, runs: Path, tmp_path: Path
) -> None:
    undisturbed = build(options(tmp_path, out=tmp_path / "undisturbed"))
    assert kill_at(function, call, options(tmp_path)) == -signal.SIGKILL
    with pytest.raises(UserError, match="unfinished: run the command"):
        Dataset.open(tmp_path / "d")
    earlier = snapshot(tmp_path / "d" / "shards")
    said: list[str] = []
    dataset = build(options(tmp_path), said.append)
    done = f"continuing: {tasks_done} of 2 tasks are already complete"
    assert said == ([done] if tasks_done else [])
    assert dataset.checksum == undisturbed.checksum
    assert all(not found for _, found in dataset.verify())
    whole = [shard.path for task in TWO[:tasks_done] for shard in dataset.shards(task)]
    for path in whole:
        assert path.stat().st_mtime_ns == earlier[path.name][0]
    expected = {p.name for shard in dataset.all_shards for p in shard.sizes}
    assert {p.name for p in (tmp_path / "d" / "shards").iterdir()} == expected
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"manifest.json", "shards"}


def test_a_build_killed_at_its_very_beginning_or_end(runs: Path, tmp_path: Path) -> None:
    """Killed before `unfinished.json` is written, and before it is removed."""
    assert kill_at("_save", 1, options(tmp_path)) == -signal.SIGKILL
    with pytest.raises(UserError, match=r"not a dataset|no such folder"):
        Dataset.open(tmp_path / "d")
    dataset = build(options(tmp_path))
    (tmp_path / "d" / "unfinished.json").write_text("{}")
    assert Dataset.open(tmp_path / "d").checksum == dataset.checksum
    with pytest.raises(UserError, match="contains a finished dataset"):
        build(options(tmp_path))


def test_an_unfinished_dataset_of_other_sources_is_refused(runs: Path, tmp_path: Path) -> None:
    assert kill_at("finish_task", 2, options(tmp_path)) == -signal.SIGKILL
    before = snapshot(tmp_path / "d" / "shards")
    for changes in ({"seeds": "1"}, {"shard_mb": 9}, {"tasks": TWO[0]}):
        with pytest.raises(UserError, match="unfinished dataset of other sources or settings"):
            build(options(tmp_path, **changes))
    fake_run(runs, TWO[0], episodes(TWO[0], 90), seed=3)
    with pytest.raises(UserError, match="unfinished dataset of other sources"):
        build(options(tmp_path))
    assert snapshot(tmp_path / "d" / "shards") == before


def test_a_full_disk_leaves_no_half_shard(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TaskWriter._append

    def full(self: TaskWriter, rows: np.ndarray, pairs: np.ndarray) -> None:
        made(self, rows, pairs)
        if self.task.name == TWO[1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TaskWriter, "_append", full)
    with pytest.raises(OSError, match="No space left"):
        build(options(tmp_path))
    names = {path.name for path in (tmp_path / "d" / "shards").iterdir()}
    assert names == {"cheetah-run-000.npy", "cheetah-run-000.episodes.npy"}
    monkeypatch.undo()
    assert len(build(options(tmp_path), lambda line: None).tasks) == 2


def test_two_builds_do_not_share_a_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on = threading.Event(), threading.Event()
    made = DatasetWriter.finish_task

    def wait(self: DatasetWriter, shards: TaskWriter) -> None:
        held.set()
        go_on.wait(30)
        made(self, shards)

    monkeypatch.setattr(DatasetWriter, "finish_task", wait)
    first = threading.Thread(target=build, args=(options(tmp_path),))
    first.start()
    assert held.wait(30)
    try:
        with pytest.raises(UserError, match="in use by process"):
            build(options(tmp_path))
    finally:
        go_on.set()
        first.join()
    assert Dataset.open(tmp_path / "d").num_episodes == 16
