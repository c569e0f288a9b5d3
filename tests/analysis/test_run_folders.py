"""Runs of several folders that claims are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.ledger.inputs import read_runs
from tdmpc2.common.system.errors import UserError
from tests.analysis.run_files import write_run


def test_the_same_run_in_two_folders_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, {0: 0.0, 100_000: 905.0})
    with pytest.raises(UserError, match="two folders hold the same run"):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_the_longer_record_of_a_run_in_two_folders_counts(tmp_path: Path) -> None:
    short, other = (
        write_run(tmp_path / "a", {0: 0.0, steps: 500.0}, seed=seed, budget=steps)
        for seed, steps in ((1, 10_000), (2, 10_000))
    )
    long = write_run(tmp_path / "b", {0: 0.0, 20_000: 700.0}, budget=20_000)
    found = read_runs([tmp_path / "a", tmp_path / "b"])
    assert set(found.runs["directory"]) == {other, long}
    assert set(found.table.loc[found.table["seed"] == 1, "step"]) == {0, 20_000}
    (problem,) = found.problems
    assert problem.where == str(short)
    assert "larger budget" in problem.what
