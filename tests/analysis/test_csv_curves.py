"""Reading of learning curves in CSV files, valid and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    # The budget of imported curves is their last step; that of the released ones is the paper's.
    assert records.runs["budget"].tolist() == [0, 100_000, 0]
    assert set(records.runs["state"]) == {"ENDED"}
    released = load_curves(tmp_path, "published").runs["budget"]
    assert released.tolist() == [2_000_000, 4_000_000, 4_000_000]
    assert records.problems == ()


def test_pixels_are_a_variant_with_a_budget_of_their_own(tmp_path):
    write_table(tmp_path / "tdmpc2-pixels" / "walker-walk.csv", HEADER, ["0,4.5,1"])
    (run,) = load_curves(tmp_path, "published").runs.to_dict("records")
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


@pytest.mark.parametrize(("empty", "what"), [("method", "no method"), ("task", "no task")])
def test_a_row_without_a_name_is_skipped(tmp_path, empty, what):
    names = {"method": "sac", "task": "walker-walk"}
    rows = [",".join([*one.values(), "1,0,5"]) for one in (names, {**names, empty: ""})]
    path = write_table(tmp_path / "x.csv", "method,task,seed,step,reward", rows)
    records = load_curves(path, "theirs")
    assert records.problems == (Problem(str(path), 3, f"{what} in its column; line skipped"),)
    assert records.runs["method"].tolist() == ["sac"]


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
        ("0,7,1.5", "seed is not an integer: '1.5'"),
        ("0,7,-1", "seed is -1, not from 0 to 1,000,000,000,000"),
        ("1e300,7,1", "step is 1e300, more than 1,000,000,000,000: not a count of steps"),
        ("inf,7,1", "step is inf, not a finite number"),
        ("0,1001,1", "reward is 1001, but returns of walker-walk lie between 0 and 1000"),
        ("0,-5,1", "reward is -5, but returns of walker-walk lie between 0 and 1000"),
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
        ("mw-reach", "step,success,seed", "0,90,1", "not a fraction from 0 to 1: percent? divide"),
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


def test_a_task_of_ones_own_is_named_once_and_has_no_normalized_score(tmp_path):
    path = write_table(tmp_path / "sac" / "walker-wlk.csv", HEADER, ["0,5,1", "10,5,1"])
    records = load_curves(tmp_path, "theirs")
    assert records.table["value"].tolist() == [5.0, 5.0]
    curves = ScoreCurves(records)
    values = curves.values([0], np.array([0, 10]), RULES["hold"])
    assert values.tolist() == [[5.0, 5.0]]
    assert np.isnan(curves.values([0], np.array([10]), RULES["hold"], normalized=True)).all()
    (problem,) = records.problems
    assert (problem.where, problem.severity) == (str(path), "warning")
    assert "unknown task 'walker-wlk' (did you mean 'walker-walk'?)" in problem.what


def test_an_empty_folder_is_an_error(tmp_path):
    records = load_curves(tmp_path, "theirs")
    assert records.table.empty
    (problem,) = records.problems
    assert (problem.where, problem.severity) == (str(tmp_path), "error")


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_separators_marks_of_byte_order_and_seeds_as_floats(tmp_path, separator, start):
    path = tmp_path / "mine.csv"
    lines = ["task,seed,step,return", "walker-walk,1.0,0,1.5"]
    path.write_text(start + "\n".join(lines).replace(",", separator) + "\n", encoding="utf-8")
    assert points(path) == {("mine", "walker-walk", 1): [(0, 1.5)]}


def test_eval_csv_of_the_official_code(tmp_path):
    """Its steps are decisions of the agent, each two control steps in DMControl."""
    place = tmp_path / "logs" / "walker-walk" / "3" / "default"
    write_table(place / "eval.csv", "step,episode_reward", ["0,10.5", "50000,900.0"])
    records = load_curves(tmp_path / "logs", "lab")
    assert points(tmp_path / "logs") == {("tdmpc2", "walker-walk", 3): [(0, 10.5), (100_000, 900)]}
    (problem,) = records.problems
    assert problem.severity == "warning"
    assert "steps are read as agent steps" in problem.what
    assert points(place / "eval.csv") == points(tmp_path / "logs")


def test_progress_of_stable_baselines(tmp_path):
    """Most of its rows are about training only, and have no score."""
    header = "time/total_timesteps,eval/mean_reward,train/loss"
    path = tmp_path / "ppo" / "walker-walk" / "seed2" / "progress.csv"
    write_table(path, header, ["500,,0.2", "1000,33.5,0.1", "1500,,0.1"])
    assert points(tmp_path) == {("ppo", "walker-walk", 2): [(1000, 33.5)]}
    (note,) = load_curves(tmp_path, "theirs").problems
    assert "is read as env steps" in note.what


def test_the_interchange_columns(tmp_path):
    lines = [
        "0,XQC,ball_in_cup-catch,0,avg_return,0.0,25.5",
        "1,XQC,ball_in_cup-catch,0,avg_success,0.0,0.5",
        "2,XQC,assembly-v2,0,avg_success,1000.0,0.25",
        "3,XQC,Hopper-v4,0,avg_return,0.0,3000.5",
        "4,XQC,cartpole-swingup_sparse,7.0,avg_return,0.0,1.5",
    ]
    path = write_table(tmp_path / "x.csv", ",exp_name,env_name,seed,metric,env_step,value", lines)
    assert points(path) == {
        ("XQC", "cup-catch", 0): [(0, 25.5)],
        ("XQC", "mw-assembly", 0): [(1000, 0.25)],
        ("XQC", "Hopper-v4", 0): [(0, 3000.5)],
        ("XQC", "cartpole-swingup-sparse", 7): [(0, 1.5)],
    }
    own, skipped = load_curves(path, "theirs").problems
    assert (own.line, own.severity) == (5, "warning")
    assert "1 lines of avg_success skipped: these tasks are scored by their return" in skipped.what


def test_a_declared_budget(tmp_path):
    header = "task,seed,step,return,budget"
    path = write_table(tmp_path / "mine.csv", header, ["walker-walk,1,1000,5,4000"])
    curves = ScoreCurves(load_curves(path, "theirs"))
    assert curves.runs["budget"].tolist() == [4000]
    values = curves.values([0], np.array([4000, 5000]), RULES["hold"])
    assert values.tolist() == [[5.0, pytest.approx(np.nan, nan_ok=True)]]


def test_the_last_value_of_a_cut_curve_represents_no_later_step(tmp_path):
    write_table(tmp_path / "tdmpc2" / "walker-walk.csv", HEADER, ["0,4.5,1", "500000,900,1"])
    curves = ScoreCurves(load_curves(tmp_path, "theirs"))
    values = curves.values([0], np.array([500_000, 500_001]), RULES["hold"])
    assert values.tolist() == [[900.0, pytest.approx(np.nan, nan_ok=True)]]


def test_files_elsewhere_are_listed(tmp_path):
    write_table(tmp_path / "sac" / "walker-walk.csv", HEADER, ["0,5,1"])
    path = write_table(tmp_path / "a" / "b" / "walker-walk.csv", HEADER, ["0,5,1"])
    (problem,) = load_curves(tmp_path, "theirs").problems
    assert problem.where == str(path)
    assert "skipped" in problem.what


def test_more_seeds_than_credible(tmp_path):
    lines = [f"0,5,{seed}" for seed in range(300)]
    write_table(tmp_path / "sac" / "walker-walk.csv", HEADER, lines)
    records = load_curves(tmp_path, "theirs")
    assert records.runs["seed"].tolist() == [*range(255)]
    (problem,) = records.problems
    assert "sac has 300 seeds on walker-walk: only the first 255 are used" in problem.what


@pytest.mark.parametrize("header", ["step,reward,seed,seed", "step,reward,reward,seed"])
def test_a_column_that_occurs_twice_is_not_guessed(tmp_path, header):
    write_table(tmp_path / "tdmpc2" / "walker-walk.csv", header, ["0,4.5,1,2"])
    records = load_curves(tmp_path, "theirs")
    assert len(records.table) == 0
    assert "occurs twice; file skipped" in str(records.problems[0])
