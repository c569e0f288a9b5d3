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
        ("walker-run 7", "file", "walker-run", "7"),
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
