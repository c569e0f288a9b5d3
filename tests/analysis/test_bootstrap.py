"""Bootstrap against hand-computed values, enumeration and rliable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rliable import library as rly
from rliable import metrics as rliable_metrics

from analysis.stats.aggregate import RLIABLE_METRICS, reference_interval
from analysis.stats.bootstrap import (
    Bootstrap,
    difference,
    interval,
    probability_of_improvement,
    profile,
    resamples,
)
from analysis.stats.run_statistics import STATISTICS, optimality_gap

FAST = Bootstrap(reps=400)
ONE_TASK = np.zeros(3, int)


def stacked(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert scores `(num_seeds, num_tasks)`, rliable's format, to runs and strata."""
    num_seeds, num_tasks = scores.shape
    return scores.T.reshape(-1, 1), np.repeat(np.arange(num_tasks), num_seeds)


def ones(scores: np.ndarray) -> np.ndarray:
    return np.ones((len(scores), 1))


def test_statistics_by_hand():
    # Three tasks with two, two and one runs; task means 2, 6 and 10.
    scores = np.array([[1.0], [3.0], [5.0], [7.0], [10.0]])
    strata = np.array([0, 0, 1, 1, 2])
    values = {name: f(scores, strata, ones(scores)).item() for name, f in STATISTICS.items()}
    assert values["mean"] == pytest.approx(6.0)
    assert values["median"] == pytest.approx(6.0)
    # A weight of 1 is cut off at each end. Runs of the first two tasks have weight 5/6 each, the
    # single run of the third has 5/3. At the low end, this is 5/6 of the lowest run and 1/6 of the
    # second; at the high end, 1 of the highest. The rest is 2/3 · 3 + 5/6 · 5 + 5/6 · 7 + 2/3 · 10,
    # divided by 3.
    assert values["iqm"] == pytest.approx((2 / 3 * 3 + 5 / 6 * 12 + 2 / 3 * 10) / 3)
    assert values["optimality_gap"] == 0.0
    gap = optimality_gap(np.array([[0.2], [1.4]]), np.array([0, 1]), np.ones((2, 1)))
    assert gap.item() == pytest.approx(0.4)


@pytest.mark.parametrize("shape", [(3, 104), (3, 5), (5, 10), (2, 1), (1, 7)])
@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_rliables(name, shape):
    rng = np.random.default_rng(1)
    # Success rates, which have many ties, and returns.
    for scores in (rng.integers(0, 11, shape) / 10, rng.random(shape) * 1.2):
        runs, strata = stacked(scores)
        ours = STATISTICS[name](runs, strata, ones(runs)).item()
        assert ours == pytest.approx(RLIABLE_METRICS[name](scores), abs=1e-12)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_resample_is_scored_as_if_its_runs_had_been_copied(name):
    rng = np.random.default_rng(2)
    scores = rng.random((4, 6))
    runs, strata = stacked(scores)
    counts = resamples((4,) * 6, FAST)[:, :20]
    drawn = STATISTICS[name](runs, strata, counts.astype("float64"))[:, 0]
    for column, value in zip(counts.T, drawn, strict=True):
        copied = np.repeat(runs[:, 0], column).reshape(6, 4).T
        assert value == pytest.approx(RLIABLE_METRICS[name](copied), abs=1e-12)


def test_resamples_draw_each_tasks_runs_uniformly():
    counts = resamples((3, 2), Bootstrap(20_000)).astype(int)
    assert (counts[:3].sum(axis=0) == 3).all()
    assert (counts[3:].sum(axis=0) == 2).all()
    assert (counts == 3).mean(axis=1)[:3] == pytest.approx([1 / 27] * 3, abs=0.005)
    assert (counts == 2).mean(axis=1)[3:] == pytest.approx([1 / 4] * 2, abs=0.01)
    # Tasks are resampled independently of each other.
    assert np.corrcoef(counts[0], counts[3])[0, 1] == pytest.approx(0.0, abs=0.03)


def test_interval_of_three_seeds_is_their_range():
    # All three samples are the lowest seed with probability 1/27 = 3.7 % > 2.5 %.
    found = interval("mean", np.array([[3.0], [1.0], [2.0]]), ONE_TASK, FAST)
    np.testing.assert_allclose(found.stacked(), [[2.0, 1.0, 3.0]], rtol=1e-12)


@pytest.mark.parametrize("num_seeds", [2, 4, 5])
def test_few_seeds_of_one_task_are_enumerated(num_seeds):
    scores = np.random.default_rng(num_seeds).random(num_seeds)
    means = [np.mean(draw) for draw in itertools.product(scores, repeat=num_seeds)]
    exact = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    found = interval("mean", scores[:, None], np.zeros(num_seeds, int), FAST)
    np.testing.assert_allclose([found.low[0], found.high[0]], exact, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 1), (3, 8), (5, 20)])
@pytest.mark.parametrize("name", STATISTICS)
def test_intervals_agree_with_rliables(name, shape):
    # With few tasks the distribution is discrete, so a bound may differ by one value.
    scores = np.random.default_rng(3).random(shape)
    many = Bootstrap(reps=6000, seed=5)
    runs, strata = stacked(scores)
    ours, theirs = interval(name, runs, strata, many), reference_interval(name, scores, many)
    np.testing.assert_allclose(ours.stacked(), theirs.stacked(), atol=0.012)


def test_the_reference_leaves_numpys_generator_alone():
    np.random.seed(123)
    expected = np.random.random(3)
    np.random.seed(123)
    reference_interval("mean", np.random.default_rng(0).random((3, 2)), Bootstrap(10))
    assert np.random.random(3).tolist() == expected.tolist()


def test_intervals_repeat_with_their_seed():
    runs, strata = stacked(np.random.default_rng(0).random((5, 6)))
    first, second = (interval("iqm", runs, strata, FAST).stacked() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = interval("iqm", runs, strata, Bootstrap(400, seed=1)).stacked()
    assert not np.array_equal(first, other)


def test_checkpoints_are_independent_of_each_other():
    scores = np.random.default_rng(4).random((12, 5))
    strata = np.repeat(np.arange(4), 3)
    for name in STATISTICS:
        together = interval(name, scores, strata, FAST).stacked()
        alone = [interval(name, scores[:, [c]], strata, FAST).stacked()[0] for c in range(5)]
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_difference_by_hand():
    # 1 or 2 or 3 with the probabilities 1/4, 1/2, 1/4, minus a constant.
    ours = np.array([[1.0], [3.0]]), np.zeros(2, int)
    theirs = np.array([[0.5], [0.5]]), np.zeros(2, int)
    found = difference("mean", ours, theirs, FAST)
    assert found.stacked().tolist() == [[1.5, 0.5, 2.5]]


def test_both_sides_of_a_difference_are_drawn_on_their_own():
    # If both sides used the same resamples, the difference would have no variance.
    side = np.array([[1.0], [3.0]]), np.zeros(2, int)
    found = difference("mean", side, side, Bootstrap(4000))
    assert found.stacked().tolist() == [[0.0, -2.0, 2.0]]


def test_profile_by_hand():
    found = profile(np.array([0.1, 0.5, 0.9]), ONE_TASK, np.array([0.0, 0.5, 0.9, 1.0]), FAST)
    np.testing.assert_allclose(found.point, [1.0, 1 / 3, 0.0, 0.0])
    np.testing.assert_allclose(found.low, [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(found.high, [1.0, 1.0, 0.0, 0.0])


def test_profile_is_rliables():
    scores = np.random.default_rng(0).integers(0, 11, (3, 6)) / 10
    taus = np.linspace(0, 1, 11)
    runs, strata = stacked(scores)
    point = profile(runs[:, 0], strata, taus, FAST).point
    profiles, _ = rly.create_performance_profile({"x": scores}, taus, reps=10)
    np.testing.assert_allclose(point, profiles["x"])


def test_probability_of_improvement_by_hand():
    # Task 0: of 2 · 2 pairs ours wins 3 and ties 1; task 1: one tie.
    ours = np.array([2.0, 3.0, 5.0]), np.array([0, 0, 1])
    theirs = np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1])
    found = probability_of_improvement(ours, theirs, FAST)
    assert found.point == pytest.approx([(3.5 / 4 + 0.5) / 2])
    assert found.low == pytest.approx([(0.5 + 0.5) / 2])
    assert found.high == pytest.approx([(1.0 + 0.5) / 2])


def test_probability_of_improvement_is_rliables():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (3, 4)) / 4, rng.integers(0, 5, (3, 4)) / 4
    (ours, strata), (theirs, _) = stacked(x), stacked(y)
    found = probability_of_improvement(
        (ours[:, 0], strata), (theirs[:, 0], strata), Bootstrap(5000)
    )
    assert found.point.item() == pytest.approx(rliable_metrics.probability_of_improvement(x, y))
    np.random.seed(0)
    _, bounds = rly.get_interval_estimates(
        {"x,y": (x, y)}, rliable_metrics.probability_of_improvement, reps=1000
    )
    np.testing.assert_allclose([found.low, found.high], bounds["x,y"], atol=0.04)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    scores = np.ones((3, 4))
    scores[2, 3] = bad
    with pytest.raises(ValueError, match=r"run 2 \(task 1\), checkpoint 3"):
        interval("mean", scores, np.array([0, 0, 1]), FAST)


@pytest.mark.parametrize(
    ("scores", "strata", "message"),
    [
        (np.ones(3), ONE_TASK, "num_runs, num_checkpoints"),
        (np.ones((0, 2)), np.zeros(0, int), "num_runs, num_checkpoints"),
        (np.ones((3, 2)), np.zeros(2, int), "num_runs, num_checkpoints"),
        (np.ones((3, 2)), np.array([0, 2, 2]), "ascend from 0"),
        (np.ones((3, 2)), np.array([0, 1, 0]), "ascend from 0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(scores, strata, message):
    with pytest.raises(ValueError, match=message):
        interval("mean", scores, strata, FAST)


def test_one_run_a_task_has_no_interval():
    found = interval("mean", np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([0, 1]), FAST)
    assert found.point.tolist() == [2.0, 4.0]
    assert np.isnan([found.low, found.high]).all()


def test_coverage_is_what_the_note_says():
    # Two and three seeds of one task: the interval is their range.
    rng = np.random.default_rng(0)
    for num_seeds, coverage in ((2, 0.50), (3, 0.75)):
        draws = rng.standard_normal((4000, num_seeds))
        covered = (draws.min(axis=1) <= 0) & (draws.max(axis=1) >= 0)
        assert covered.mean() == pytest.approx(coverage, abs=0.03)
    for num_seeds, coverage in ((2, 0.83), (3, 0.89)):
        strata = np.repeat(np.arange(104), num_seeds)
        # Each checkpoint is a repetition of the whole experiment.
        scores = rng.standard_normal((len(strata), 1500))
        found = interval("mean", scores, strata, FAST)
        covered = (found.low <= 0) & (found.high >= 0)
        assert covered.mean() == pytest.approx(coverage, abs=0.03)
