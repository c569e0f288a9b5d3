"""Runs of several folders, as one set of records."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from analysis.records.load import load, load_curves, merge
from analysis.records.load_folders import read_runs
from tdmpc2.common.system.errors import UserError
from tests.analysis.run_files import write_run, write_table


def test_the_same_run_in_two_folders_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, {0: 0.0, 100_000: 905.0})
    with pytest.raises(UserError, match="two folders hold the same run"):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_the_longer_record_of_a_run_in_two_folders_counts(tmp_path: Path) -> None:
    _, other = (
        write_run(tmp_path / "a", {0: 0.0, 10_000: 500.0}, seed=seed, budget=10_000)
        for seed in (1, 2)
    )
    long = write_run(tmp_path / "b", {0: 0.0, 20_000: 700.0}, budget=20_000)
    found = read_runs([tmp_path / "a", tmp_path / "b"])
    assert set(found.runs["directory"]) == {other, long}
    assert set(found.table.loc[found.table["seed"] == 1, "step"]) == {0, 20_000}
    (problem,) = found.problems
    assert problem.where == str(tmp_path / "a")
    assert problem.what == "1 run left out: another folder holds it with a larger budget"


def test_of_two_reference_scores_that_with_more_episodes_counts(tmp_path: Path) -> None:
    for name, episodes in (("a", 10), ("b", 20), ("c", 10)):
        write_run(tmp_path / name, {0: 0.0, 1000: 5.0}, seed=episodes, variant=name)
        scores = {policy: {"mean": float(episodes), "sd": 1.0} for policy in ("uniform", "zero")}
        folder = tmp_path / name / "floors"
        folder.mkdir()
        content = {"task": "walker-walk", "episodes": episodes, **scores}
        (folder / "walker-walk.json").write_text(json.dumps(content))
    found = read_runs([tmp_path / name for name in "abc"]).reference_scores
    assert found["policy"].tolist() == ["uniform", "zero"]
    assert set(found["mean"]) == {20.0}


def test_records_with_and_without_a_value_stack_without_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {0: 0.0, 1000: 5.0}, seed=1, num_parameters=5_000_000)
    write_run(tmp_path / "b", {0: 0.0, 1000: 5.0}, seed=2)
    write_table(tmp_path / "c" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", ["0,1,1"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = read_runs([tmp_path / "a", tmp_path / "b"])
        both = merge([own, load_curves(tmp_path / "c", "published")])
    assert len(both.runs) == 3
    assert own.runs.dtypes["seed"] == load(tmp_path / "a").runs.dtypes["seed"]
