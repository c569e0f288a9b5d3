"""Which columns of CSV files are the scores, and of which run: wandb, metrics, and percent."""

from __future__ import annotations

import pytest

from analysis.records.curve_formats import Identity, run_identity
from analysis.records.load import load_curves
from tests.analysis.run_files import write_table
from tests.analysis.test_csv_curves import points


def test_an_export_of_wandb(tmp_path):
    header = '"Step","sac-walker-walk-seed1 - eval/episode_reward",' + ",".join(
        f'"sac-walker-walk-seed1 - eval/episode_reward{bound}"' for bound in ("__MIN", "__MAX")
    )
    header += ',"mine_mw-reach_2 - eval/episode_success"'
    lines = ['"0","5","5","5",""', '"1000","","","","0.5"']
    path = write_table(tmp_path / "wandb.csv", header, lines)
    assert points(path) == {
        ("sac", "walker-walk", 1): [(0, 5.0)],
        ("mine", "mw-reach", 2): [(1000, 0.5)],
    }
    (problem,) = load_curves(path, "theirs").problems
    assert "column Step is read as env steps" in problem.what


@pytest.mark.parametrize(
    ("name", "method", "task", "seed"),
    [
        ("tdmpc2-walker-walk", "tdmpc2", "walker-walk", None),
        ("tdmpc2-walker-walk-3", "tdmpc2", "walker-walk", "3"),
        ("dreamerv3_cheetah-run", "dreamerv3", "cheetah-run", None),
        ("sac-ball_in_cup-catch-seed1", "sac", "cup-catch", "1"),
        ("sac/walker_walk/s2", "sac", "walker-walk", "2"),
        ("sac-assembly-v2-seed=4", "sac", "mw-assembly", "4"),
        ("sac-myo-reach-hard_4", "sac", "myo-hand-reach-hard", "4"),
        ("seed_1-sac-walker-run-2024", "sac-2024", "walker-run", "1"),
        ("s4-walker-run-1-final", "s4", "walker-run", "1"),
        ("walker-run 07", "file", "walker-run", "7"),
        ("fluent-sweep-3", "fluent-sweep", None, "3"),
    ],
)
def test_names_of_runs(name, method, task, seed):
    assert run_identity(name, Identity("file")) == Identity(method, "default", task, seed)


def test_a_run_without_a_seed_costs_its_column_only(tmp_path):
    header = "Step,tdmpc2-walker-walk - eval/return,tdmpc2-walker-walk-1 - eval/return"
    path = write_table(tmp_path / "wandb.csv", header, ["0,5,6", "1000,7,8"])
    assert points(path) == {("tdmpc2", "walker-walk", 1): [(0, 6.0), (1000, 8.0)]}
    error, note = sorted(load_curves(path, "x").problems, key=lambda one: one.severity)
    assert (error.line, note.severity) == (1, "warning")
    assert "tdmpc2-walker-walk - eval/return: the name of the run contains no seed" in error.what


def test_a_column_for_the_task_counts_wherever_the_file_lies(tmp_path):
    lines = ["cup-catch,1,0,5", "walker-run,1,0,6", ",1,0,7"]
    path = write_table(tmp_path / "sac" / "walker-walk.csv", "task,seed,step,return", lines)
    assert points(tmp_path) == {
        ("sac", "cup-catch", 1): [(0, 5.0)],
        ("sac", "walker-run", 1): [(0, 6.0)],
    }
    (problem,) = load_curves(tmp_path, "x").problems
    assert (problem.where, problem.line) == (str(path), 4)
    assert "no task in its column" in problem.what


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (
            "exp_name,env_name,seed,metric,env_step,value",
            ["sac,walker-walk,1,episode_reward,0,5", "sac,walker-walk,1,eval/episode_reward,0,6"],
        ),
        (
            "Step,sac-walker-walk-1 - episode_reward,sac-walker-walk-1 - eval/episode_reward",
            ["0,5,6"],
        ),
        ("method,task,seed,env_step,episode_reward,test/reward", ["sac,walker-walk,1,0,5,6"]),
        ("method,task,seed,env_step,reward,episode_reward", ["sac,walker-walk,1,0,5,6"]),
    ],
    ids=["long", "wandb", "wide", "names that say more"],
)
def test_one_score_of_a_run_is_read_and_the_other_is_named(tmp_path, header, lines):
    path = write_table(tmp_path / "x.csv", header, lines)
    assert points(path) == {("sac", "walker-walk", 1): [(0, 6.0)]}
    (problem,) = [one for one in load_curves(path, "x").problems if "left out" in one.what]
    assert problem.severity == "warning"
    assert problem.what.split()[0] in ("episode_reward", "reward")


def test_returns_and_successes_beside_each_other_are_no_others(tmp_path):
    lines = ["walker-walk,1,0,5,0", "mw-reach,1,0,9,1"]
    path = write_table(tmp_path / "x.csv", "task,seed,env_step,return,success", lines)
    assert points(path) == {("x", "walker-walk", 1): [(0, 5.0)], ("x", "mw-reach", 1): [(0, 1.0)]}
    assert load_curves(path, "x").problems == ()


def test_two_runs_of_wandb_with_one_name_are_not_one_curve(tmp_path):
    header = "Step,sac-walker-walk-1-a - return,sac-walker-walk-1-b - return"
    path = write_table(tmp_path / "x.csv", header, ["0,5,6"])
    assert points(path) == {("sac", "walker-walk", 1): [(0, 5.0)]}
    errors = [one.what for one in load_curves(path, "x").problems if one.severity == "error"]
    assert errors == [
        "sac-walker-walk-1-b - return: same method, task and seed as sac-walker-walk-1-a - return; "
        "column skipped"
    ]


def test_a_bad_cell_of_wandb_costs_no_other_run(tmp_path):
    header = "Step,sac-walker-walk-1 - return,sac-walker-walk-2 - return"
    path = write_table(tmp_path / "x.csv", header, ["0,many,6"])
    assert points(path) == {("sac", "walker-walk", 2): [(0, 6.0)]}


def test_rows_of_training_have_no_evaluation(tmp_path):
    header = "task,seed,env_step,episode_reward,eval/episode_reward"
    path = write_table(tmp_path / "x.csv", header, ["walker-walk,1,0,5,", "walker-walk,1,9,6,7"])
    assert points(path) == {("x", "walker-walk", 1): [(9, 7.0)]}
    assert [one.severity for one in load_curves(path, "x").problems] == ["warning"]


def test_a_run_in_percent_is_left_out_as_a_whole(tmp_path):
    """Its first values, 0 and 1 %, would pass as fractions: 1 % as 100 %."""
    lines = [f"{step},{value},1" for step, value in enumerate((0, 1, 60, 100))]
    write_table(tmp_path / "sac" / "mw-reach.csv", "step,success,seed", [*lines, "0,0.5,2"])
    assert points(tmp_path) == {("sac", "mw-reach", 2): [(0, 0.5)]}
    (problem,) = load_curves(tmp_path, "x").problems
    assert (problem.line, problem.severity) == (4, "error")
    assert problem.what == (
        "success is 60, not a fraction from 0 to 1: percent? divide by 100; sac, mw-reach, seed 1 "
        "skipped"
    )


def test_training_scores_do_not_replace_evaluations_in_percent(tmp_path):
    lines = ["mw-reach,1,eval/success,0,60", "mw-reach,1,success,0,0.5"]
    path = write_table(tmp_path / "x.csv", "task,seed,metric,env_step,value", lines)
    assert points(path) == {}


def test_a_value_above_1_by_rounding_costs_its_line_only(tmp_path):
    lines = ["0,1.0000001,1", "5,0.5,1"]
    write_table(tmp_path / "sac" / "mw-reach.csv", "step,success,seed", lines)
    assert points(tmp_path) == {("sac", "mw-reach", 1): [(5, 0.5)]}
