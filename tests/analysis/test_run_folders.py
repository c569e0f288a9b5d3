"""Runs of several folders as one set of records."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from analysis.records.load import load, load_curves, merge
from analysis.records.run_folders import load_folders
from tdmpc2.common.system.errors import UserError
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_reference_scores, write_run, write_table


def test_the_same_run_in_two_folders_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, {0: 0.0, 100_000: 905.0})
    with pytest.raises(UserError, match="two folders hold the same run"):
        load_folders([tmp_path / "a", tmp_path / "b"])


def test_the_longer_record_of_a_run_in_two_folders_counts(tmp_path: Path) -> None:
    short, other = (
        write_run(tmp_path / "a", {0: 0.0, steps: 500.0}, seed=seed, budget=steps)
        for seed, steps in ((1, 10_000), (2, 10_000))
    )
    long = write_run(tmp_path / "b", {0: 0.0, 20_000: 700.0}, budget=20_000)
    found = load_folders([tmp_path / "a", tmp_path / "b"])
    assert set(found.runs["directory"]) == {other, long}
    assert set(found.table.loc[found.table["seed"] == 1, "step"]) == {0, 20_000}
    (problem,) = found.problems
    assert problem.where == str(short)
    assert "a longer record of this run" in problem.what


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ({"points": {0: 1.0}, "state": "FAILED"}, {"budget": 50_000}),
        ({"state": "INTERRUPTED"}, {"state": "COMPLETED"}),
        ({"budget": None}, {"budget": 200_000}),
        ({"points": {0: 1.0}, "budget": None}, {"budget": None}),
    ],
)
def test_the_record_that_was_evaluated_further_is_the_longer_one(
    tmp_path: Path, shorter: dict[str, Any], longer: dict[str, Any]
) -> None:
    """Whatever its budget, which need not be recorded; then one that is completed."""
    points = {"points": {0: 1.0, 50_000: 2.0}}
    one = write_run(tmp_path / "one", **{**points, **shorter})
    other = write_run(tmp_path / "other", **{**points, **longer})
    for names in (("one", "other"), ("other", "one")):
        found = load_folders([tmp_path / name for name in names])
        assert list(found.runs["directory"]) == [other]
        assert found.problems[0].where == str(one)


def test_other_settings_of_one_name_in_two_folders_are_distinguished(tmp_path: Path) -> None:
    """As in one folder, also for the same seed and with another budget."""
    where = [tmp_path / name for name in ("a", "b")]
    for folder, rate, steps in zip(where, (0.001, 0.01), (10_000, 20_000), strict=True):
        write_run(folder, {0: 0.0, steps: 500.0}, budget=steps, overrides={"lr": rate})
    found = load_folders(where)
    assert set(found.runs["variant"]) == {"default[lr=0.001]", "default[lr=0.01]"}
    assert set(found.table["variant"]) == set(found.runs["variant"])
    (problem,) = found.problems
    assert "runs with different settings, distinguished as default[lr=0.001]," in problem.what


def test_other_datasets_in_two_folders_are_distinguished(tmp_path: Path) -> None:
    where = [tmp_path / name for name in ("a", "b")]
    for folder, name in zip(where, ("small", "large"), strict=True):
        write_multitask_run(folder, {100: (50.0, 50.0)}, dataset=name * 10, dataset_name=name)
    assert set(load_folders(where).runs["dataset"]) == {"small", "large"}


def test_runs_that_a_folder_holds_twice_are_left_out_there_only(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {0: 0.0, 1000: 5.0}, budget=1000)
    shutil.copytree(first, first.with_name(f"{first.name}-copy"))
    kept = write_run(tmp_path / "b", {0: 0.0, 1000: 5.0}, budget=1000)
    found = load_folders([tmp_path / "a", tmp_path / "b"])
    assert found.runs["directory"].tolist() == [kept]
    (problem,) = found.problems
    assert "all 2 excluded" in problem.what


def test_reference_scores_of_a_task_in_two_folders_count_once(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b"), 1):
        write_run(tmp_path / name, {0: 0.0, 1000: 500.0}, seed=seed)
        write_reference_scores(tmp_path / name, "walker-walk", (40.0 + seed, 12.0), (20.0, 5.0))
    found = load_folders([tmp_path / "a", tmp_path / "b"])
    assert found.runs["seed"].tolist() == [1, 2]
    scores = found.reference_scores.set_index("policy")["mean"]
    assert scores.to_dict() == {"uniform": 41.0, "zero": 20.0}


def test_several_shorter_records_of_a_folder_are_one_problem(tmp_path: Path) -> None:
    for seed in (1, 2):
        for name, steps in (("a", 10_000), ("b", 20_000)):
            write_run(tmp_path / name, {0: 0.0, steps: 500.0}, seed=seed, budget=steps)
    (problem,) = load_folders([tmp_path / "a", tmp_path / "b"]).problems
    assert problem.where.startswith(str(tmp_path / "a"))
    assert "2 runs" in problem.what


def test_of_two_reference_scores_that_with_more_episodes_counts(tmp_path: Path) -> None:
    for name, episodes in (("a", 10), ("b", 20), ("c", 10)):
        write_run(tmp_path / name, {0: 0.0, 1000: 5.0}, seed=episodes, variant=name)
        scores = {policy: {"mean": float(episodes), "sd": 1.0} for policy in ("uniform", "zero")}
        folder = tmp_path / name / "floors"
        folder.mkdir()
        content = {"task": "walker-walk", "episodes": episodes, **scores}
        (folder / "walker-walk.json").write_text(json.dumps(content))
    found = load_folders([tmp_path / name for name in "abc"]).reference_scores
    assert found["policy"].tolist() == ["uniform", "zero"]
    assert set(found["mean"]) == {20.0}


def test_records_with_and_without_a_value_stack_without_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {0: 0.0, 1000: 5.0}, seed=1, num_parameters=5_000_000)
    write_run(tmp_path / "b", {0: 0.0, 1000: 5.0}, seed=2)
    write_table(tmp_path / "c" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", ["0,1,1"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = load_folders([tmp_path / "a", tmp_path / "b"])
        both = merge([own, load_curves(tmp_path / "c", "published")])
    assert len(both.runs) == 3
    assert own.runs.dtypes["seed"] == load(tmp_path / "a").runs.dtypes["seed"]
