"""Verdicts against scipy and hand-computed values, and their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.stats.equivalence import (
    Difference,
    difference,
    difference_from,
    mean_difference,
    p_values,
    welch,
)

INF = float("inf")


def test_interval_is_welchs():
    rng = np.random.default_rng(0)
    for counts in ((3, 3), (2, 5), (10, 3)):
        ours, theirs = rng.normal(50, 3, counts[0]), rng.normal(48, 9, counts[1])
        found = difference(ours, theirs)
        test = stats.ttest_ind(ours, theirs, equal_var=False)
        for level in (0.9, 0.95):
            np.testing.assert_allclose(found.interval(level), test.confidence_interval(level))
        assert found.value == pytest.approx(ours.mean() - theirs.mean())


def test_intervals_end_at_the_range_of_possible_differences():
    """Three seeds of 90, 70 and 50 % against three of 0 %: ±4.303 · 20 / √3 about 70."""
    found = difference(np.array([90.0, 70.0, 50.0]), np.zeros(3))
    width = stats.t.ppf(0.975, 2) * 20 / np.sqrt(3)
    np.testing.assert_allclose(found.interval(0.95), (70 - width, 100))
    np.testing.assert_allclose(Difference(-70, found.error, 2).interval(0.95), (-100, width - 70))
    # Scores of an environment of one's own may exceed its score_range.
    assert Difference(120, 1, 2).interval(0.95)[1] == 120
    assert found.verdict(10) == Difference(70, found.error, 2).verdict(10) == "better"


def test_interval_about_a_published_number_is_students():
    ours = np.random.default_rng(0).normal(50, 3, 5)
    found, test = difference_from(ours, 48.0), stats.ttest_1samp(ours, 48.0)
    assert found.value == pytest.approx(ours.mean() - 48)
    for level in (0.9, 0.95):
        expected = np.array(test.confidence_interval(level)) - 48
        np.testing.assert_allclose(found.interval(level), expected)
    assert np.isnan(difference_from(ours[:1], 48.0).error)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        # With a normal error the 90 % interval is 1.645 and the 95 % interval 1.96 errors wide.
        (0.0, 6.0, "reproduced"),
        (0.0, 6.1, "not enough data"),
        (-5.0, 3.0, "reproduced"),
        (-5.0, 3.1, "not enough data"),
        (-7.0, 3.5, "worse"),
        (7.0, 3.5, "better"),
        (-20.0, 10.3, "not enough data"),
        (-20.0, 10.1, "worse"),
        (-4.0, 0.0, "reproduced"),  # significantly worse, but within the margin
        (-11.0, 0.0, "worse"),
        (0.0, float("nan"), "not enough data"),
    ],
)
def test_verdict_by_hand(value, error, verdict):
    assert Difference(value, error, INF).verdict(10.0) == verdict


def test_a_single_seed_says_nothing():
    found = difference(np.array([50.0]), np.array([50.0, 51.0, 49.0]))
    assert np.isnan(found.interval(0.95)).all()
    assert found.verdict(10.0) == "not enough data"


def test_equal_scores_without_spread_are_reproduced():
    ones = np.full(3, 100.0)
    assert difference(ones, ones).verdict(10.0) == "reproduced"


def test_mean_over_tasks_by_hand():
    parts = [Difference(4.0, 3.0, 4.0), Difference(-2.0, 4.0, 8.0), Difference(1.0, 0.0, INF)]
    found = mean_difference(parts)
    assert found.value == pytest.approx(1.0)
    assert found.error == pytest.approx(5 / 3)
    assert found.freedom == pytest.approx(25**2 / (9**2 / 4 + 16**2 / 8))
    unknown = mean_difference([*parts, Difference(0.0, float("nan"), float("nan"))])
    assert unknown.verdict(10.0) == "not enough data"


def test_p_value_is_welchs():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(50, 3, 4), rng.normal(48, 9, 3)
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    assert difference(ours, theirs).p_value == pytest.approx(test.pvalue)
    assert Difference(1.0, 0.0, INF).p_value == 0
    assert Difference(0.0, 0.0, INF).p_value == 1
    assert np.isnan(Difference(1.0, float("nan"), float("nan")).p_value)


def test_many_differences_at_once():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(50, 3, (5, 3)), rng.normal(48, 9, (5, 4))
    many = welch(ours, theirs)
    single = [difference(*sides) for sides in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(many[0], [one.value for one in single])
    np.testing.assert_allclose(many[1], [one.error for one in single])
    np.testing.assert_allclose(p_values(*many), [one.p_value for one in single])


def test_the_least_variance_replaces_smaller_ones():
    ones, twos = np.full(3, 1.0), np.array([1.0, 2.0, 3.0])
    found = difference(ones, twos, (9.0, 0.5))
    assert found.error == pytest.approx(np.sqrt(9 / 3 + 1 / 3))
    assert found.freedom == pytest.approx((10 / 3) ** 2 / ((3**2 + (1 / 3) ** 2) / 2))


def test_a_corrected_p_value_decides():
    found = Difference(-20.0, 9.0, INF)
    assert found.verdict(10.0) == "worse"
    assert found.verdict(10.0, 0.06) == "not enough data"


@pytest.mark.parametrize("spread", [2.0, 8.0])
def test_verdicts_are_wrong_no_oftener_than_they_say(spread):
    """Equal agents are flagged as worse in 2.5 %, agents at the margin as reproduced in 5 %."""
    rng = np.random.default_rng(0)
    num = 3000
    equal, off = [], []
    for _ in range(num):
        theirs = rng.normal(50, spread, 3)
        equal.append(difference(rng.normal(50, spread, 3), theirs).verdict(10.0))
        off.append(difference(rng.normal(40, spread, 3), theirs).verdict(10.0))
    assert equal.count("worse") / num < 0.03
    assert off.count("reproduced") / num < 0.055
    if spread == 2.0:  # with a small variance, few seeds suffice
        assert equal.count("reproduced") / num > 0.95
