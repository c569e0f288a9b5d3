"""Verdicts on claims: expected values by hand, and error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.verdicts import error_rates, seeds_needed
from analysis.stats.ablation_claims import OPEN, Expected, judge
from analysis.stats.equivalence import Difference, difference, mean_difference

STEADY = math.inf  # degrees of freedom of an exactly known standard error


@pytest.mark.parametrize(
    ("value", "error", "expected", "verdict"),
    [
        # 95 %: ± 1.96, 90 %: ± 1.64 standard errors; margin 5.
        (-10.0, 5.0, "lower", "supported"),
        (-9.7, 5.0, "lower", OPEN),
        (0.0, 3.0, "lower", "contradicted"),
        (0.0, 3.1, "lower", OPEN),
        (6.0, 3.1, "lower", "contradicted"),
        (-2.0, 1.0, "lower", "supported"),  # within the margin, but lower
        (0.0, 3.0, "same", "supported"),
        (0.0, 3.1, "same", OPEN),
        (-7.0, 3.0, "same", "contradicted"),
        (7.0, 3.0, "same", "contradicted"),
        (3.0, 1.0, "same", "supported"),  # different from zero, but within the margin
        (-7.0, 3.0, None, "lower"),
        (7.0, 3.0, None, "higher"),
        (1.0, 2.0, None, "no difference"),
        (1.0, 3.0, None, OPEN),
    ],
)
def test_by_hand(value: float, error: float, expected: Expected | None, verdict: str) -> None:
    assert judge(Difference(value, error, STEADY), expected) == verdict


@pytest.mark.parametrize("expected", ["lower", "same", None])
def test_single_seeds_settle_nothing(expected: Expected | None) -> None:
    assert judge(Difference(-50.0, math.nan, math.nan), expected) == OPEN
    assert seeds_needed([(np.array([10.0]), np.array([60.0, 61.0]))], expected) is None


# Three seeds on three tasks as in the paper's figure, with a spread of 5 points over seeds.
SETTING = {"spread": 5.0, "num_seeds": 3, "num_tasks": 3}


def rate(effect: float, expected: Expected | None, verdict: str, **changes: float) -> float:
    setting = {**SETTING, **changes}
    return error_rates(effect, expected=expected, **setting).get(verdict, 0.0)  # type: ignore[arg-type]


def test_false_positives_are_as_rare_as_they_say() -> None:
    """Bounds: two standard errors of 2,000 studies, 0.7 points at a rate of 2.5 %, 1 at 5 %."""
    assert 0.01 < rate(0.0, "lower", "supported") < 0.035
    assert 0.02 < rate(0.0, "same", "contradicted", spread=15.0) < 0.06
    # A loss of exactly the margin counts as no loss in at most 5 % of the studies.
    assert 0.02 < rate(-5.0, "lower", "contradicted") < 0.065
    assert rate(-5.0, "same", "supported") < 0.065
    both = rate(0.0, None, "lower", spread=15.0) + rate(0.0, None, "higher", spread=15.0)
    assert 0.02 < both < 0.06


def test_power() -> None:
    """Three seeds on three tasks detect a loss of 10 points, but often miss a loss of 5."""
    assert rate(-10.0, "lower", "supported") > 0.95
    assert 0.3 < rate(-5.0, "lower", "supported") < 0.6
    assert rate(0.0, "lower", "contradicted") > 0.4
    more = [rate(-5.0, "lower", "supported", num_seeds=n) for n in (3, 5, 10)]
    assert more == sorted(more)
    assert more[-1] > 0.9


def test_seeds_needed_settle_it() -> None:
    rng = np.random.default_rng(0)
    pairs = [(60 + 8 * rng.standard_normal(3), 66 + 8 * rng.standard_normal(3)) for _ in range(3)]
    needed = seeds_needed(pairs, "lower")
    assert needed is not None
    assert 3 < needed < 40
    # Scores with the same mean and spread decide the verdict at `needed` seeds, but not below.
    for count, settled in ((needed, True), (needed - 1, False)):
        parts = [difference(*(like(side, count) for side in pair)) for pair in pairs]
        assert (judge(mean_difference(parts), "lower") != OPEN) == settled


def like(scores: np.ndarray, count: int) -> np.ndarray:
    """Build `count` scores with the mean and spread of the given scores."""
    grid = np.linspace(-1, 1, count)
    return scores.mean() + grid * scores.std(ddof=1) / grid.std(ddof=1)


def test_hopeless_cases_ask_for_no_seeds() -> None:
    flat = np.array([0.0, 100.0])
    assert seeds_needed([(flat, flat - 2.5)], "same", margin=2.5) is None
