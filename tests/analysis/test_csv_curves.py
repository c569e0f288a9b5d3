"""Reading of learning curves in CSV files, valid and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.records.load import RUNS, TABLE, load_curves
from analysis.records.problems import Problem
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tests.analysis.run_files import write_table

HEADER = "step,reward,seed"


def points(path: Path) -> dict[tuple[str, str, int], list[tuple[int, float]]]:
    table = load_curves(path, "theirs").table
    found: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for row in table.itertuples():
        found.setdefault((row.method, row.task, row.seed), []).append((row.step, row.value))
    return found


def test_the_authors_layout(tmp_path):
    lines = ["0,4.5,2", "100000,7.5,2", "0,3.0,1"]
    write_table(tmp_path / "tdmpc2" / "walker-walk.csv", HEADER, lines)
    write_table(tmp_path / "sac" / "mw-reach.csv", "step,success,seed", ["0,0.5,1"])
    assert points(tmp_path) == {
        ("sac", "mw-reach", 1): [(0, 0.5)],
        ("tdmpc2", "walker-walk", 2): [(0, 4.5), (100_000, 7.5)],
        ("tdmpc2", "walker-walk", 1): [(0, 3.0)],
    }
    records = load_curves(tmp_path, "theirs")
    assert list(records.table.columns) == TABLE
    assert list(records.runs.columns) == RUNS
    assert set(records.table["source"]) == {"theirs"}
    assert set(records.table["metric"]) == {"episode_return", "episode_success"}
    assert records.runs["budget"].tolist() == [2_000_000, 4_000_000, 4_000_000]
    assert records.problems == ()


def test_pixels_are_a_variant_with_a_budget_of_their_own(tmp_path):
    write_table(tmp_path / "tdmpc2-pixels" / "walker-walk.csv", HEADER, ["0,4.5,1"])
    (run,) = load_curves(tmp_path, "theirs").runs.to_dict("records")
    assert (run["method"], run["variant"], run["obs"]) == ("tdmpc2", "default[obs=rgb]", "rgb")
    assert run["budget"] == 2_000_000


def test_one_file_with_a_column_for_everything(tmp_path):
    path = write_table(
        tmp_path / "mine.csv",
        "method,seed,task,env_step,episode_return",
        ["a,1,walker-walk,0,1.5", "b,1,walker-walk,0,2.5", "a,1,ball-in-cup-catch,0,3.5"],
    )
    assert points(path) == {
        ("a", "walker-walk", 1): [(0, 1.5)],
        ("b", "walker-walk", 1): [(0, 2.5)],
        ("a", "cup-catch", 1): [(0, 3.5)],
    }


def test_a_file_without_a_method_is_called_after_itself(tmp_path):
    path = write_table(tmp_path / "mine.csv", "task,seed,step,success", ["mw-reach,1,0,1"])
    assert points(path) == {("mine", "mw-reach", 1): [(0, 1.0)]}


def test_repeated_steps_are_kept_for_the_rule(tmp_path):
    path = write_table(tmp_path / "tdmpc" / "walker-walk.csv", HEADER, ["0,1,1", "0,3,1"])
    assert points(tmp_path) == {("tdmpc", "walker-walk", 1): [(0, 1.0), (0, 3.0)]}
    curves = ScoreCurves(load_curves(tmp_path, "theirs"))
    assert RULES["hold"].at(curves.curves[0], curves.grid([0])).tolist() == [2.0]
    assert path.exists()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("100000,7", "2 fields for 3 columns"),
        ("1e5x,7,1", "step is not a number: '1e5x'"),
        ("1.5,7,1", "step is 1.5, not a non-negative integer"),
        ("-1,7,1", "step is -1, not a non-negative integer"),
        ("0,,1", "reward is not a number: ''"),
        ("0,nan,1", "reward is nan, not a finite number"),
        ("0,7,one", "seed is not an integer: 'one'"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path, line, what):
    path = write_table(tmp_path / "sac" / "walker-walk.csv", HEADER, ["0,5,1", line, "100,6,1"])
    records = load_curves(tmp_path, "theirs")
    assert records.problems == (Problem(str(path), 3, f"{what}; line skipped"),)
    assert records.table["value"].tolist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("task", "header", "line", "what"),
    [
        ("walker-walk", "step,success,seed", "0,1,1", "scored by its return"),
        ("mw-reach", "step,reward,seed", "0,900,1", "scored by its success"),
        ("mw-reach", "step,success,seed", "0,90,1", "not a fraction from 0 to 1"),
    ],
)
def test_other_units_are_refused(tmp_path, task, header, line, what):
    write_table(tmp_path / "sac" / f"{task}.csv", header, [line])
    records = load_curves(tmp_path, "theirs")
    assert records.table.empty
    assert what in records.problems[0].what
    assert records.problems[0].line == 2


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("step,reward", "seed"),
        ("reward,seed", "env_step or env_steps or step"),
        ("step,seed,score", "episode_return or return or reward"),
        ("", "seed"),
    ],
)
def test_missing_columns_cost_the_file(tmp_path, header, missing):
    path = write_table(tmp_path / "sac" / "walker-walk.csv", header, ["0,1,1"])
    (problem,) = load_curves(tmp_path, "theirs").problems
    assert (problem.where, problem.line, problem.severity) == (str(path), 1, "error")
    assert problem.what.startswith("missing column")
    assert missing in problem.what


def test_half_written_last_line_is_a_warning(tmp_path):
    path = write_table(tmp_path / "sac" / "walker-walk.csv", HEADER, ["0,5,1"])
    path.write_text(path.read_text() + "1000")
    (problem,) = load_curves(tmp_path, "theirs").problems
    assert (problem.line, problem.severity) == (3, "warning")
    assert "incomplete last line" in problem.what


def test_unknown_task_is_named_once_with_the_nearest(tmp_path):
    path = write_table(tmp_path / "sac" / "walker-wlk.csv", HEADER, ["0,5,1", "10,5,1"])
    (problem,) = load_curves(tmp_path, "theirs").problems
    assert problem.where == str(path)
    assert "unknown task 'walker-wlk' (did you mean 'walker-walk'?)" in problem.what


def test_an_empty_folder_is_an_error(tmp_path):
    records = load_curves(tmp_path, "theirs")
    assert records.table.empty
    (problem,) = records.problems
    assert (problem.where, problem.severity) == (str(tmp_path), "error")
