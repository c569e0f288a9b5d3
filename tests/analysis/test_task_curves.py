"""Mean curves and reference scores of single tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.records.load import load, load_curves, merge
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from analysis.stats.task_curves import reference_scores, task_curves
from tests.analysis.run_files import write_reference_scores, write_run, write_table

FAST = Bootstrap(reps=400)


def curves_of(runs: Path, rule: str = "hold") -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    return task_curves(ScoreCurves(load(runs)), RULES[rule], FAST)


def test_task_curves_by_hand(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0, 2000: 300.0}, seed=1)
    write_run(tmp_path, {0: 30.0, 1000: 200.0}, seed=2, state="RUNNING")
    curves, problems = curves_of(tmp_path)
    assert curves["step"].tolist() == [0, 1000, 2000]
    bounds = curves[["mean", "low", "high"]].to_numpy()
    # Two seeds have one degree of freedom; the interval ends at the range of returns.
    width = 10 * stats.t.ppf(0.975, 1)
    expected = [[20.0, 0.0, 20 + width], [150.0, 0.0, 150 + 5 * width]]
    np.testing.assert_allclose(bounds[:2], expected)
    assert np.isnan(bounds[2]).all()
    assert curves["num_seeds"].tolist() == [2, 2, 1]
    assert curves["seeds"].tolist() == ["1 2", "1 2", "1"]
    assert curves["seed_values"].tolist() == ["10.0 30.0", "100.0 200.0", "300.0"]
    assert curves["missing_seeds"].tolist() == ["", "", "2"]
    assert curves["reps"].tolist() == [400] * 3
    assert [str(problem) for problem in problems] == [
        "warning: runs/tdmpc2/default/5/walker-walk: 1 of 3 steps not averaged: "
        "seed 2 lacks 1 (2000)"
    ]


def test_task_curves_do_not_depend_on_what_else_was_run(tmp_path):
    for seed, value in ((1, 3.0), (2, 5.0), (3, 9.0), (4, 4.0)):
        write_run(tmp_path, {0: value}, seed=seed, task="walker-walk")
    alone, _ = curves_of(tmp_path)
    write_run(tmp_path, {0: 1.0}, task="acrobot-swingup")
    write_run(tmp_path, {0: 1.0}, method="sac", task="walker-walk")
    both, _ = curves_of(tmp_path)
    same = both[(both["task"] == "walker-walk") & (both["method"] == "tdmpc2")]
    pd.testing.assert_frame_equal(same.reset_index(drop=True), alone)


def test_task_curve_of_one_seed_has_no_interval(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0})
    curves, problems = curves_of(tmp_path)
    assert curves["mean"].tolist() == [10.0, 100.0]
    assert curves[["low", "high"]].isna().all(axis=None)
    assert ["one seed" in problem.what for problem in problems] == [True]


def test_an_ended_run_is_carried_to_the_end_of_its_budget(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0, 2000: 300.0}, seed=1)
    write_run(tmp_path, {0: 30.0, 1000: 200.0}, seed=2, state="DIVERGED")
    curves, problems = curves_of(tmp_path)
    assert curves["mean"].tolist() == [20.0, 150.0, 250.0]
    assert problems == ()


def test_where_nothing_is_filled_in_the_seeds_there_are_averaged(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0, 2000: 300.0}, seed=1)
    write_run(tmp_path, {0: 30.0, 1000: 200.0}, seed=2)
    curves, problems = curves_of(tmp_path, "available")
    assert curves["mean"].tolist() == [20.0, 150.0, 300.0]
    assert curves["num_seeds"].tolist() == [2, 2, 1]
    assert problems == ()


def test_reference_scores_by_hand(tmp_path):
    write_reference_scores(tmp_path, "walker-walk", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_run(tmp_path, {0: 50.0, 1000: 900.0}, seed=1, sd=8.0)
    write_run(tmp_path, {0: 30.0, 1000: 900.0}, seed=2, sd=14.0)
    lines = reference_scores(load(tmp_path)).loc["walker-walk"]
    assert lines.to_dict() == {
        "uniform": 43.0,
        "zero": 20.0,
        "untrained": 50.0,
        "threshold": 50.0 + 3 * 14.0,
    }


def test_published_curves_are_no_floor(tmp_path):
    write_run(tmp_path / "runs", {0: 50.0, 1000: 900.0})
    write_table(
        tmp_path / "paper" / "sac" / "walker-walk.csv", "step,reward,seed", ["0,400,1", "9,500,1"]
    )
    records = merge([load(tmp_path / "runs"), load_curves(tmp_path / "paper", "published")])
    assert reference_scores(records).loc["walker-walk", "untrained"] == 50.0


def test_no_threshold_where_a_floor_was_not_measured(tmp_path):
    write_reference_scores(tmp_path, "walker-walk", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_reference_scores(tmp_path, "mw-reach", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_run(tmp_path, {1000: 900.0}, task="walker-walk")
    write_run(tmp_path, {0: 50.0}, task="cup-catch")
    write_run(tmp_path, {0: 0.5}, task="mw-reach", domain="metaworld", metric="success")
    lines = reference_scores(load(tmp_path))
    assert lines["threshold"].isna().all()
    assert lines["uniform"].dropna().to_dict() == {"walker-walk": 43.0}
    assert lines["untrained"].dropna().to_dict() == {"cup-catch": 50.0, "mw-reach": 0.5}
