"""Verdicts of families of tests: corrections, margins, and forecasts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.stats.equivalence import LEVEL, difference
from analysis.stats.least_variance import (
    binomial_variance,
    hidden_failure_rate,
    lower_quartile,
    tied_variance,
)
from analysis.stats.margins import LARGEST_MARGIN, domain_margin, level_for_loss, smallest_margin
from analysis.stats.multiplicity import (
    LOSS_SHARE,
    directed,
    discovery_level,
    false_discovery,
    holm,
    level_shares,
)
from analysis.stats.seed_forecast import forecast
from benchmarks.gate_errors import exit_codes, pools, simulate

NAN = float("nan")
NO_LEAST = (0.0, 0.0)


def test_holm_by_hand():
    # 0.01 * 3, 0.02 * 2, 0.04 * 1; a test that cannot be computed does not count.
    found = holm(np.array([0.04, 0.01, NAN, 0.02]))
    np.testing.assert_allclose(found, [0.04, 0.03, NAN, 0.04])


def test_weighted_holm_by_hand():
    # Quotients 0.01 / 0.8 and 0.01 / 0.2: the first is multiplied by 1 / 0.8, the second by 1.
    np.testing.assert_allclose(holm(np.array([0.01, 0.01]), np.array([0.8, 0.2])), [0.0125, 0.0125])


def test_more_of_the_level_is_for_losses():
    """At 5 %, a loss needs a one-sided p-value below 3.5 %, and a gain one below 1.5 %."""
    two_sided = 2 * np.array([0.035, 0.015, 0.9, NAN])
    found = directed(two_sided, np.array([-1.0, 1.0, 1.0, -1.0]))
    np.testing.assert_allclose(found, [LEVEL, LEVEL, 1, NAN])
    assert LOSS_SHARE == 0.7


@pytest.mark.slow
def test_error_rates_of_the_exit_code(published_curves):
    """Four methods, three seeds: the rates that are stated in docs/analysis.md."""
    gate = {
        domain: simulate(success, pool, domain[0], 3, 4000, place)
        for place, (domain, (success, pool)) in enumerate(pools(published_curves).items())
    }
    studies = [*gate.values()]
    assert np.mean(exit_codes(studies, [0.0] * len(gate)) == 1) <= 0.03
    for lost in gate:
        if lost[1] in ("dmcontrol", "metaworld"):
            losses = [10.0 if domain == lost else 0.0 for domain in gate]
            assert np.mean(exit_codes(studies, losses) == 1) >= 0.95, lost


def test_false_discovery_is_scipys():
    p_values = np.random.default_rng(0).uniform(size=20) ** 3
    expected = stats.false_discovery_control(p_values)
    np.testing.assert_allclose(false_discovery(np.append(p_values, NAN)), [*expected, NAN])


def test_the_level_goes_first_to_tests_that_can_use_it():
    """15 % are divided equally; of the rest, half of the needs of 0.01 and 0.02 are served."""
    shares = level_shares(np.array([0.05, 0.01, 0.02, np.inf]), 0.02)
    equal = 0.003 / 3
    expected = np.array([equal + 0.002, equal + 0.005, equal + 0.01, 0.02 * equal])
    np.testing.assert_allclose(shares[:3], expected[:3] / expected.sum())
    np.testing.assert_allclose(level_shares(np.array([0.01, 0.01]), 0.05), [0.5, 0.5])
    assert (level_shares(np.full(4, 0.05), 0.05) > 0).all()


def test_the_smallest_margin_is_settled_with_80_percent():
    """Endless seeds of ours that are equal to three published ones are called reproduced."""
    rng = np.random.default_rng(0)
    margin = smallest_margin(np.ones(200), np.full(200, 3))  # 400 degrees of freedom
    error = np.sqrt(1 / 3 / 200)
    assert margin == pytest.approx(error * (stats.t.ppf(0.95, 400) + stats.norm.ppf(0.9)))
    gaps = error * rng.standard_normal(4000)
    settled = np.abs(gaps) + stats.t.ppf(0.95, 400) * error < margin
    assert np.mean(settled) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("smallest", "wanted", "expected"),
    [
        (1.0, None, (3.0, True)),
        (4.01, None, (4.1, True)),
        (LARGEST_MARGIN + 1, None, (LARGEST_MARGIN + 1, False)),
        (4.0, 5.0, (5.0, True)),
        (6.0, 5.0, (5.0, False)),
    ],
)
def test_domain_margins(smallest, wanted, expected):
    assert domain_margin("tdmpc2", smallest, wanted) == pytest.approx(expected)


def test_the_level_for_a_loss():
    three = np.full(20, 3)
    assert level_for_loss(np.full(20, 1.0), three, three) < 1e-4
    assert level_for_loss(np.full(20, 1600.0), three, three) == LEVEL


def test_least_variances_by_hand():
    scores = np.array([[100.0, 100.0], [0.0, 100.0]])
    shares = np.array([100.5 / 101, 0.5])
    np.testing.assert_allclose(binomial_variance(scores, 50), 1e4 * shares * (1 - shares) / 50)
    assert lower_quartile(np.array([0.0, 1.0, 2.0, 3.0, 4.0])) == 1.0
    assert hidden_failure_rate(3) == pytest.approx(0.2063, abs=1e-4)


def test_a_forecast_states_what_more_seeds_settle():
    theirs = np.array([49.0, 50.0, 51.0])
    found = forecast(np.array([40.0, 60.0, 50.0]), theirs, 10.0, NO_LEAST)
    assert found is not None
    assert 3 < found.low <= found.high
    assert found.outcome == "reproduced"
    assert str(
        found
    ) == f"{found.low} to {found.high}: reproduced ({found.probability:.0%})".replace("%)", " %)")
    assert found == forecast(np.array([40.0, 60.0, 50.0]), theirs, 10.0, NO_LEAST)
    worse = forecast(np.array([20.0, 40.0, 30.0]), theirs, 10.0, NO_LEAST)
    assert worse is not None
    assert worse.outcome == "worse"


def test_no_number_of_ours_makes_up_for_their_spread():
    theirs = np.array([10.0, 50.0, 90.0])
    assert forecast(np.array([50.0, 51.0]), theirs, 10.0, NO_LEAST) is None
    assert forecast(np.array([50.0]), np.array([50.0, 50.0]), 10.0, NO_LEAST) is None


def test_the_level_of_a_discovery_is_that_of_the_correction():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 20):
        p_values = np.append(rng.uniform(size=size) ** 3, NAN)
        adjusted = false_discovery(p_values)
        levels = [discovery_level(p_values, place, 0.05) for place in range(size)]
        np.testing.assert_array_equal(p_values[:-1] < levels, adjusted[:-1] < 0.05)


def test_a_forecast_needs_the_corrected_level():
    """One of 20 tasks, 18 points below three published seeds, is never flagged at 0.05 / 20."""
    theirs = np.array([44.0, 50.0, 56.0])
    alone = forecast(theirs - 18, theirs, 10.0, NO_LEAST)
    assert alone is not None
    assert alone.outcome == "worse"
    assert forecast(theirs - 18, theirs, 10.0, NO_LEAST, 0.05 / 20) is None


def test_forecasts_come_true():
    """With the upper number of seeds, about as many verdicts are settled as was forecast."""
    rng = np.random.default_rng(0)
    settled, promised = [], []
    for _ in range(150):
        ours, theirs = rng.normal(50, 8, 3), rng.normal(50, 2, 3)
        if difference(ours, theirs).verdict(10.0) != "not enough data":
            continue
        found = forecast(ours, theirs, 10.0, NO_LEAST)
        if found is not None:
            more = np.append(ours, rng.normal(50, 8, found.high - 3))
            settled.append(difference(more, theirs).verdict(10.0) == found.outcome)
            promised.append(found.probability)
    assert len(settled) > 50
    assert np.mean(settled) > np.mean(promised) - 0.1


def test_equal_returns_have_the_variance_of_a_rare_score() -> None:
    two, four = np.zeros(2), np.array([90.0, 90.0, 90.0, 90.0])
    assert tied_variance(two, four) == pytest.approx(1 / 6 * 5 / 6 * 90**2)
    assert tied_variance(four, two) == pytest.approx(0.1 * 0.9 * 90**2)
    assert tied_variance(np.array([0.0, 1.0]), four) == 0
    assert tied_variance(four, four + 1e-13) == 0
    near = np.array([0.0, 13.0])
    assert tied_variance(near, four, 0.15) == pytest.approx(1 / 6 * 5 / 6 * 90**2)
    assert tied_variance(near, four, 0.14) == 0
