"""Statistics against hand-computed matrices, enumeration and rliable itself."""

from __future__ import annotations

import numpy as np
import pytest
from rliable import library as rly

from analysis.aggregate import (
    Bootstrap,
    aggregate_curves,
    floors,
    mean_interval,
    scores,
    task_curves,
)
from analysis.records import load
from tests.analysis.run_files import write_floors, write_run

FAST = Bootstrap(reps=400)


def test_mean_interval_by_hand():
    # 2 seeds, 2 tasks, 2 checkpoints. Resampled per task, the mean over both tasks takes the
    # values 1.5, 2, 2.5, 3, 3.5 at the first checkpoint, the outer ones in 1/16 of the cases,
    # more than the 2.5 % cut off at each end; the second checkpoint does not vary.
    values = np.array([[[1.0, 6.0], [2.0, 8.0]], [[2.0, 6.0], [5.0, 8.0]]])
    mean, low, high = mean_interval(values, FAST)
    assert mean.tolist() == [2.5, 7.0]
    assert low.tolist() == [1.5, 7.0]
    assert high.tolist() == [3.5, 7.0]


def test_interval_of_three_seeds_is_their_range():
    # All three draws are the lowest seed in 1/27 = 3.7 % > 2.5 % of the cases.
    values = np.array([3.0, 1.0, 2.0]).reshape(3, 1, 1)
    mean, low, high = mean_interval(values, Bootstrap(reps=2000))
    assert (mean.item(), low.item(), high.item()) == (2.0, 1.0, 3.0)


def test_interval_is_rliables():
    values = np.random.default_rng(0).random((5, 4, 3))
    np.random.seed(7)
    points, intervals = rly.get_interval_estimates(
        {"x": values}, lambda x: x.mean(axis=(0, 1)), reps=300
    )
    mean, low, high = mean_interval(values, Bootstrap(reps=300, seed=7))
    np.testing.assert_array_equal(mean, points["x"])
    np.testing.assert_array_equal(np.stack([low, high]), intervals["x"])


def test_interval_agrees_with_the_exact_bootstrap_distribution():
    # Every one of the 4 ** 4 resamples of four seeds, by enumeration.
    seeds = np.array([0.1, 0.4, 0.5, 0.9])
    draws = np.stack(np.meshgrid(*[seeds] * 4), axis=-1).reshape(-1, 4).mean(axis=1)
    exact = np.percentile(draws, [2.5, 97.5])
    _, low, high = mean_interval(seeds.reshape(4, 1, 1), Bootstrap(reps=20_000))
    np.testing.assert_allclose([low.item(), high.item()], exact, atol=0.026)


def test_intervals_repeat_and_leave_numpys_generator_alone():
    values = np.random.default_rng(0).random((5, 3, 2))
    np.random.seed(123)
    expected = np.random.random(3)
    np.random.seed(123)
    first = mean_interval(values, FAST)
    assert np.random.random(3).tolist() == expected.tolist()
    np.testing.assert_array_equal(first, mean_interval(values, FAST))
    assert not np.array_equal(first[1], mean_interval(values, Bootstrap(400, seed=1))[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    values = np.ones((3, 2, 4))
    values[2, 1, 3] = bad
    with pytest.raises(ValueError, match="seed index 2, task index 1, checkpoint index 3"):
        mean_interval(values, FAST)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 2), (3, 0, 2), (3, 2, 0)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="num_seeds, num_tasks, num_checkpoints"):
        mean_interval(np.ones(shape), FAST)


def test_one_seed_has_no_interval():
    with pytest.warns(UserWarning, match="one seed"):
        mean, low, high = mean_interval(np.array([[[1.0, 2.0], [3.0, 6.0]]]), FAST)
    assert mean.tolist() == [2.0, 4.0]
    assert np.isnan([low, high]).all()


def test_coverage_is_what_the_note_says():
    # Two and three seeds of one task: the interval is their range (tested above).
    rng = np.random.default_rng(0)
    for num_seeds, coverage in ((2, 0.50), (3, 0.75)):
        draws = rng.standard_normal((4000, num_seeds))
        covered = (draws.min(axis=1) <= 0) & (draws.max(axis=1) >= 0)
        assert covered.mean() == pytest.approx(coverage, abs=0.03)
    for num_seeds, coverage in ((2, 0.83), (3, 0.89)):
        covered = 0
        for _ in range(400):
            values = rng.standard_normal((num_seeds, 104))
            picks = rng.integers(num_seeds, size=(200, num_seeds, 104))
            means = np.take_along_axis(values[None], picks, axis=1).mean(axis=(1, 2))
            low, high = np.percentile(means, [2.5, 97.5])
            covered += low <= 0 <= high
        assert covered / 400 == pytest.approx(coverage, abs=0.05)


def test_scores_are_those_of_each_tasks_metric(tmp_path):
    write_run(tmp_path, {0: 250.0}, task="walker-walk")
    write_run(tmp_path, {0: 0.4}, task="mw-reach", domain="metaworld", metric="success")
    table = scores(load(tmp_path)).set_index("task")
    assert table["metric"].to_dict() == {
        "mw-reach": "episode_success",
        "walker-walk": "episode_return",
    }
    assert table["normalised"].to_dict() == {"mw-reach": 0.4, "walker-walk": 0.25}


def test_task_curves_by_hand(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0, 2000: 300.0}, seed=1)
    write_run(tmp_path, {0: 30.0, 1000: 200.0}, seed=2)
    curves, problems = task_curves(load(tmp_path), FAST)
    assert curves["step"].tolist() == [0, 1000, 2000]
    bounds = curves[["mean", "low", "high"]].to_numpy()
    assert bounds[:2].tolist() == [[20.0, 10.0, 30.0], [150.0, 100.0, 200.0]]
    assert np.isnan(bounds[2]).all()
    assert curves["num_seeds"].tolist() == [2, 2, 1]
    assert curves["seeds"].tolist() == ["1 2", "1 2", "1"]
    assert curves["seed_values"].tolist() == ["10.0 30.0", "100.0 200.0", "300.0"]
    assert curves["missing_seeds"].tolist() == ["", "", "2"]
    assert curves["reps"].tolist() == [400] * 3
    assert [str(problem) for problem in problems] == [
        "warning: tdmpc2/default/5/walker-walk: 1 of 3 steps not averaged: seed 2 lacks 1 (2000)"
    ]


def test_task_curves_do_not_depend_on_what_else_was_run(tmp_path):
    for seed, value in ((1, 3.0), (2, 5.0), (3, 9.0), (4, 4.0)):
        write_run(tmp_path, {0: value}, seed=seed, task="walker-walk")
    alone, _ = task_curves(load(tmp_path), FAST)
    write_run(tmp_path, {0: 1.0}, task="acrobot-swingup")
    write_run(tmp_path, {0: 1.0}, method="sac", task="walker-walk")
    both, _ = task_curves(load(tmp_path), FAST)
    same = both[(both["task"] == "walker-walk") & (both["method"] == "tdmpc2")]
    assert same.to_numpy().tolist() == alone.to_numpy().tolist()


def test_task_curve_of_one_seed_has_no_interval(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 100.0})
    curves, problems = task_curves(load(tmp_path), FAST)
    assert curves["mean"].tolist() == [10.0, 100.0]
    assert curves[["low", "high"]].isna().all(axis=None)
    assert ["one seed" in problem.what for problem in problems] == [True]


def test_aggregate_curves_by_hand(tmp_path):
    for task, values in (("walker-walk", (100.0, 300.0)), ("cup-catch", (800.0, 1000.0))):
        for seed, value in enumerate(values, start=1):
            write_run(tmp_path, {0: 0.0, 1000: value}, task=task, seed=seed)
    for seed in (1, 2):
        success = {"domain": "metaworld", "metric": "success"}
        write_run(tmp_path, {0: 0.0, 500: 0.5 * seed}, task="mw-reach", seed=seed, **success)
    curves, problems = aggregate_curves(load(tmp_path), FAST)
    assert problems == ()
    assert curves[["domain", "step", "num_seeds", "num_tasks"]].to_numpy().tolist() == [
        ["dmcontrol", 0, 2, 2],
        ["dmcontrol", 1000, 2, 2],
        ["metaworld", 0, 2, 1],
        ["metaworld", 500, 2, 1],
    ]
    np.testing.assert_allclose(
        curves[["mean", "low", "high"]],
        [[0.0, 0.0, 0.0], [0.55, 0.45, 0.65], [0.0, 0.0, 0.0], [0.75, 0.5, 1.0]],
    )
    assert curves["tasks"].iloc[0] == "cup-catch walker-walk"


def test_aggregate_lists_steps_and_series_that_lack_a_run(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, {0: 0.0, 1000: 100.0}, task="walker-walk", seed=seed)
        write_run(tmp_path, {0: 0.0}, task="cup-catch", seed=seed)
    write_run(tmp_path, {0: 500.0}, task="cup-catch", method="sac")
    curves, problems = aggregate_curves(load(tmp_path), FAST)
    assert curves[["method", "step"]].to_numpy().tolist() == [["tdmpc2", 0]]
    assert [str(problem) for problem in problems] == [
        "warning: sac/default/5/dmcontrol: 1 of 1 steps not averaged: "
        "seed 1 of walker-walk lacks 1 (0)",
        "warning: tdmpc2/default/5/dmcontrol: 1 of 2 steps not averaged: "
        "seed 1 of cup-catch lacks 1 (1000); seed 2 of cup-catch lacks 1 (1000)",
    ]


def test_floors_by_hand(tmp_path):
    write_floors(tmp_path, "walker-walk", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_run(tmp_path, {0: 50.0, 1000: 900.0}, seed=1, sd=8.0)
    write_run(tmp_path, {0: 30.0, 1000: 900.0}, seed=2, sd=14.0)
    lines = floors(load(tmp_path)).loc["walker-walk"]
    assert lines.to_dict() == {
        "uniform": 43.0,
        "zero": 20.0,
        "untrained": 50.0,
        "threshold": 50.0 + 3 * 14.0,
    }


def test_no_threshold_where_a_floor_was_not_measured(tmp_path):
    write_floors(tmp_path, "walker-walk", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_floors(tmp_path, "mw-reach", uniform=(43.0, 12.0), zero=(20.0, 5.0))
    write_run(tmp_path, {1000: 900.0}, task="walker-walk")
    write_run(tmp_path, {0: 50.0}, task="cup-catch")
    write_run(tmp_path, {0: 0.5}, task="mw-reach", domain="metaworld", metric="success")
    lines = floors(load(tmp_path))
    assert lines["threshold"].isna().all()
    assert lines["uniform"].dropna().to_dict() == {"walker-walk": 43.0}
    assert lines["untrained"].dropna().to_dict() == {"cup-catch": 50.0, "mw-reach": 0.5}
