"""Folders and files that a colleague may not read are named, and hide nothing for others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from analysis.records.load import Records, load
from sweeps import status
from tdmpc2.bundle.contents import create
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import can_list, closed_folders
from tdmpc2.data.sources import find_runs
from tests.analysis.run_files import write_run
from tests.sweeps.directories import plan, write_status, write_sweep

NOBODY = 65534


@contextlib.contextmanager
def colleague() -> Iterator[None]:
    """Act as another user, if this one is root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everyone can reach and write, unlike those of pytest."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700)


def as_colleague(runs: Path) -> Records:
    with colleague():
        return load(runs)


def test_closed_folders(shared: Path) -> None:
    (shared / "a" / "b").mkdir(parents=True)
    (shared / "c").mkdir(mode=0)
    with colleague():
        assert can_list(shared)
        assert not can_list(shared / "c")
        assert closed_folders(shared, 0) == []
        assert closed_folders(shared, 2) == [shared / "c"]
        assert closed_folders(shared / "c", 2) == [shared / "c"]


def test_runs_that_may_not_be_read_are_named(shared: Path) -> None:
    paths = [write_run(shared, {0: 1.0}, seed=seed) for seed in (1, 2, 3)]
    other = write_run(shared, {0: 1.0}, method="sac")
    load(shared)  # imports what another user may not read
    (shared / ".records-cache.parquet").unlink()
    paths[0].chmod(0)
    (paths[1] / "eval.csv").chmod(0)
    other.parents[2].chmod(0)
    records = as_colleague(shared)
    assert set(records.table["seed"]) == {3}
    named = {problem.where for problem in records.problems if "cannot be read" in problem.what}
    assert named == {str(paths[0]), str(paths[1] / "eval.csv"), str(other.parents[2])}
    for path in (paths[0], other.parents[2], paths[1] / "eval.csv"):
        path.chmod(0o755)  # changes no modification time
    again = as_colleague(shared)
    assert set(again.table["seed"]) == {1, 2, 3}
    assert set(again.runs["method"]) == {"tdmpc2", "sac"}
    assert again.problems == ()


def test_datasets_and_bundles_name_them(shared: Path) -> None:
    path = write_run(shared, {0: 1.0})
    path.parent.chmod(0)
    with colleague():
        found = find_runs(shared, ["walker-walk"], method="tdmpc2")
        (reason,) = found.left_out.values()
        assert reason == f"{path.parent}: cannot be read (Permission denied)"
        with pytest.raises(UserError, match=r"walker-walk: cannot be read \(Permission denied\)"):
            create([shared], shared / "bundle")


def test_the_sweep_of_a_colleague_is_named(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        planned = plan(shared, number, env_steps=100)
        for run in planned:
            write_status(run, "COMPLETED", 100)
        sweep = write_sweep(shared, planned)
    assert status.main([f"runs={shared}"]) == 0
    sweep.path.chmod(0)
    capsys.readouterr()
    with colleague():
        assert status.main([f"runs={shared}"]) == 1
    printed = capsys.readouterr().out
    assert f"damaged: {sweep.path}/sweep.json: cannot be read (Permission denied)\n" in printed
    assert "100.0 %" in printed
