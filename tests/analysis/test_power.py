"""Power of planned comparisons: against simulated verdicts, and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from ablations.verdicts import error_rates
from analysis.records.load import load_curves
from analysis.stats.ablation_claims import Expected, judge
from analysis.stats.equivalence import MOST_SEEDS, difference, mean_difference, quantile
from analysis.stats.margins import POWER
from analysis.stats.power import (
    Sides,
    points_text,
    power,
    seeds_needed,
    smallest_effect,
    spread_factors,
)
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.seed_spreads import spread_of
from tdmpc2.envs.tasks import TASKS, get_suite

CLAIMS: tuple[Expected | None, ...] = ("lower", "same", None)
NOISE = 0.025
"""Three standard errors of 4,000 simulated studies."""


def equal(spread: float, num_seeds: int, num_tasks: int = 3) -> Sides:
    variances = np.full(num_tasks, spread**2)
    return Sides.of(variances, variances, num_seeds)


@pytest.mark.parametrize(
    ("spread", "num_seeds", "loss"),
    [(6.0, 3, 10.0), (6.0, 3, 5.0), (6.0, 10, 5.0), (12.0, 3, 10.0)],
)
def test_losses_are_found_as_often_as_verdicts_say(
    spread: float, num_seeds: int, loss: float
) -> None:
    rates = error_rates(-loss, spread, num_seeds, 3, "lower", repeats=4000)
    assert power(equal(spread, num_seeds), loss, "lower") == pytest.approx(
        rates["supported"], abs=NOISE
    )


@pytest.mark.parametrize(("spread", "num_seeds"), [(3.0, 3), (6.0, 3), (6.0, 10)])
def test_equal_agents_are_called_equal_as_often_as_verdicts_say(
    spread: float, num_seeds: int
) -> None:
    rates = error_rates(0.0, spread, num_seeds, 3, "same", repeats=4000)
    assert power(equal(spread, num_seeds), 5.0, "same") == pytest.approx(
        rates["supported"], abs=NOISE
    )


def test_differences_without_a_claim_are_found_as_often_as_verdicts_say() -> None:
    rates = error_rates(8.0, 6.0, 3, 3, None, repeats=4000)
    found = rates.get("higher", 0.0) + rates.get("lower", 0.0)
    assert power(equal(6.0, 3), 8.0, None) == pytest.approx(found, abs=NOISE)


@pytest.mark.parametrize("expected", ["lower", "same"])
def test_unequal_spreads_and_seeds(expected: Expected) -> None:
    """Both sides and all tasks differ in spread and seeds."""
    spreads, counts = np.array([[2.0, 9.0], [4.0, 1.0]]), np.array([[3, 3], [4, 5]])
    rng = np.random.default_rng(1)
    effect = 10.0
    shift = -effect if expected == "lower" else 0.0
    verdicts = []
    for _ in range(4000):
        pairs = [
            [
                (side == 0) * shift + spreads[side, task] * rng.standard_normal(counts[side, task])
                for side in (0, 1)
            ]
            for task in (0, 1)
        ]
        found = mean_difference([difference(*pair) for pair in pairs])
        verdicts.append(judge(found, expected, margin=effect))
    sides = Sides(spreads**2, counts, np.zeros((2, 2)))
    rate = verdicts.count("supported") / len(verdicts)
    assert power(sides, effect, expected) == pytest.approx(rate, abs=NOISE)


def test_the_error_rate_without_an_effect_is_that_of_the_test() -> None:
    assert power(equal(6.0, 10), 0.0, "lower") == pytest.approx(0.025, abs=0.004)
    assert power(equal(6.0, 10), 0.0, None) == pytest.approx(0.05, abs=0.008)


def test_with_many_seeds_it_is_the_noncentral_t_distribution() -> None:
    num_seeds, loss = 30, 3.0
    error, freedom = 6 * math.sqrt(2 / (3 * num_seeds)), 3 * 2 * (num_seeds - 1)
    exact = 1 - special.nctdtr(freedom, loss / error, quantile(0.975, freedom))
    assert power(equal(6.0, num_seeds), loss, "lower") == pytest.approx(exact, abs=0.005)


def test_the_power_of_the_papers_ablations(published_curves: Path) -> None:
    """Three seeds find a loss of 10 points in 38 %, of 5 in 14 %; ten seeds one of 10 in 95 %.

    Those rates come from studies drawn from the discrete published scores, these from Gaussian
    scores with the same spread.
    """
    tasks = [task.name for task in get_suite("ablation")]
    records = load_curves(published_curves, "published", tasks=tasks).select(methods=["tdmpc2"])
    curves = ScoreCurves(records)
    assert sorted(curves.runs["task"].unique()) == sorted(tasks)
    found = [
        spread_of(curves, rows.index.to_numpy(), TASKS[str(task)].env_steps)
        for task, rows in curves.runs.groupby("task")
    ]
    variances = np.array([one.variance for one in found if one is not None])
    assert len(variances) == len(tasks)
    for num_seeds, loss, rate in ((3, 10.0, 0.38), (10, 10.0, 0.95), (3, 5.0, 0.14)):
        sides = Sides.of(variances, variances, num_seeds)
        assert power(sides, loss, "lower") == pytest.approx(rate, abs=0.035)
    assert power(equal(6.0, 3), 10.0, "lower") == pytest.approx(0.86, abs=0.01)


@pytest.mark.parametrize("claim", CLAIMS)
def test_smallest_effect_and_seeds_agree_with_the_power(claim: Expected | None) -> None:
    sides = equal(6.0, 3)
    effect = smallest_effect(sides, claim)
    assert power(sides, effect, claim) == pytest.approx(POWER, abs=1e-6)
    assert smallest_effect(sides.scaled(2.0), claim) == pytest.approx(2 * effect)
    needed = seeds_needed(sides, 5.0, claim)
    assert needed is not None
    assert (
        power(equal(6.0, needed), 5.0, claim) >= POWER > power(equal(6.0, needed - 1), 5.0, claim)
    )


def test_limits() -> None:
    assert smallest_effect(equal(6.0, 1), "lower") == math.inf
    assert smallest_effect(equal(0.0, 3), "lower") == 0.0
    assert seeds_needed(equal(0.0, 3), 5.0, "same") == 2
    assert seeds_needed(equal(60.0, 3), 5.0, "lower") is None
    # Three published seeds with a large spread: endless seeds of ours are not enough.
    assert seeds_needed(equal(12.0, 3), 5.0, "same", both=False) is None
    assert seeds_needed(equal(12.0, 3), 5.0, "same") < MOST_SEEDS


def test_least_variances_make_the_test_more_careful() -> None:
    sides = equal(6.0, 3)
    careful = Sides(sides.variances, sides.counts, sides.variances)
    assert power(careful, 10.0, "lower") < power(sides, 10.0, "lower")


def test_uncertainty_of_the_spread_by_hand() -> None:
    """Six degrees of freedom: chi-square quantiles 14.449 and 1.237."""
    low, high = spread_factors(np.full(3, 36.0), np.full(3, 2))
    assert (low, high) == pytest.approx((math.sqrt(6 / 14.4494), math.sqrt(6 / 1.23734)), rel=1e-4)
    # One term dominates: two degrees of freedom.
    low, high = spread_factors(np.array([36.0, 1e-9, 1e-9]), np.full(3, 2))
    assert (low, high) == pytest.approx(
        (math.sqrt(2 / 7.37776), math.sqrt(2 / 0.0506356)), rel=1e-4
    )
    assert spread_factors(np.zeros(3), np.full(3, 2)) == (1.0, 1.0)


def test_texts() -> None:
    assert [points_text(effect) for effect in (8.06, 18.2, 100.4)] == ["8.1", "18", "over 100"]
