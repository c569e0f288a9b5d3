"""Group-sequential tests: levels over looks and claims, decisions, and error rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.stats.alpha_spending import nominal_levels
from analysis.stats.equivalence import Difference, mean_over_tasks, welch
from analysis.stats.group_sequential import (
    CONTINUE,
    CONTRADICTED,
    FUTILE,
    HIGHER,
    LOWER,
    SAME,
    SUPPORTED,
    UNDECIDED,
    Design,
    Found,
    decide,
    next_look,
    regions,
    run_study,
)

SURE = 1e6  # degrees of freedom with which t is normal


def found(value: float, error: float, freedom: float = SURE) -> Found:
    return Found.of(Difference(value, error, freedom))


def test_levels_of_two_looks_agree_with_the_bivariate_normal() -> None:
    level, fraction, exponent = 0.025, 0.4, 2.0
    first, second = nominal_levels(level, (fraction, 1.0), exponent)
    assert first == pytest.approx(level * fraction**exponent)
    bounds = -stats.norm.ppf([first, second])
    together = stats.multivariate_normal(cov=[[1, fraction**0.5], [fraction**0.5, 1]])
    assert 1 - together.cdf(bounds) == pytest.approx(level, abs=1e-5)


@pytest.mark.parametrize("level", [0.002, 0.0225, 0.05])
def test_all_looks_together_spend_the_level(level: float) -> None:
    design, rng = Design(), np.random.default_rng(0)
    levels = nominal_levels(level, design.fractions, design.exponent)
    times = np.array(design.fractions)
    steps = rng.standard_normal((400_000, len(times))) * np.sqrt(np.diff(times, prepend=0))
    statistics = np.cumsum(steps, axis=1) / np.sqrt(times)
    crossed = (statistics > -stats.norm.ppf(levels)).any(axis=1).mean()
    assert abs(crossed - level) < 4 * (level / 400_000) ** 0.5
    assert list(levels) == sorted(levels)


def test_one_look_has_the_whole_level() -> None:
    assert nominal_levels(0.02, (1.0,), 3.0) == (0.02,)


@pytest.mark.parametrize(
    ("look", "value", "error", "expected", "decision"),
    [
        (0, -30.0, 1.0, "lower", SUPPORTED),
        (0, -30.0, 1.0, "same", CONTRADICTED),
        (0, 30.0, 1.0, "same", CONTRADICTED),
        (0, 30.0, 1.0, "lower", CONTRADICTED),
        (0, -30.0, 1.0, None, LOWER),
        (0, 30.0, 1.0, None, HIGHER),
        (4, 0.0, 1.0, "same", SUPPORTED),
        (4, 0.0, 1.0, "lower", CONTRADICTED),
        (4, 0.0, 1.0, None, SAME),
        (0, -2.5, 2.0, "lower", CONTINUE),
        (3, 0.0, 40.0, "same", FUTILE),
        (4, -2.5, 2.0, "lower", UNDECIDED),
    ],
)
def test_decisions(look: int, value: float, error: float, expected: Any, decision: str) -> None:
    design = Design()
    level = design.level_of(1)
    assert decide(design, look, found(value, error), expected, 5.0, level) == decision


def test_a_supported_claim_passes_its_level_on() -> None:
    """A difference that is too small for a quarter of the level suffices for the whole."""
    design = Design(looks=(10,), family_level=0.05, claim_level=0.05)
    z = -stats.norm.ppf([0.05 / 4, 0.05 / 2])
    between = -float(z.mean())
    strong = -10.0
    decisions = np.full((2, 4), CONTINUE, dtype="U16")
    values = np.array([[between, 1, 1, 1], [between, strong, strong, 1]])
    ones = np.ones_like(values)
    at = Found(values, ones, SURE * ones)
    after, was_open = next_look(design, 0, at, ["lower"] * 4, 0.5, decisions)
    assert after[0, 0] == UNDECIDED
    assert list(after[1, :3]) == [SUPPORTED] * 3
    assert was_open.all()


def test_decided_claims_stay_decided() -> None:
    design = Design(looks=(2, 3))
    at = [found(-30.0, 1.0), found(30.0, 1.0)]
    parts = [Found(f.value[None], f.error[None], f.freedom[None]) for f in at]
    decisions, looks = run_study(design, parts, ["lower"], 5.0)
    assert decisions[0] == SUPPORTED
    assert looks[0] == 0


def simulate(
    loss: float, spread: float, claims: int, expected: Any = "lower", studies: int = 2000
) -> tuple[Any, ...]:
    design, rng = Design(), np.random.default_rng(1)
    scores = spread * rng.standard_normal((studies, claims + 1, 3, design.looks[-1]))
    base, ours = scores[:, :1], scores[:, 1:] - loss
    at = [
        Found(*mean_over_tasks(*welch(ours[..., :n], np.broadcast_to(base, ours.shape)[..., :n])))
        for n in design.looks
    ]
    decisions, looks = run_study(design, at, [expected] * claims, 5.0)
    return decisions, np.array(design.looks)[looks]


def test_equal_agents_are_rarely_called_lower() -> None:
    decisions, seeds = simulate(loss=0.0, spread=6.0, claims=4)
    any_supported = (decisions == SUPPORTED).any(axis=1).mean()
    assert any_supported < 0.05 + 3 * (0.05 / 2000) ** 0.5
    assert (decisions == CONTRADICTED).mean() > 0.85
    assert seeds.mean() < 7.6


def test_claims_without_a_direction_share_the_level_of_the_study() -> None:
    """Both directions together have the share of a claim, however many claims there are."""
    design, levels = Design(), Design().level_of(np.array([1, 3, 8]))
    one = regions(design, 4, found(0.0, 1.0), None, 5.0, levels)
    for region, expected in zip(one[:2], ("lower", "higher"), strict=True):
        assert region.decision == expected
    half = regions(design, 4, found(0.0, 1.0), "lower", 5.0, levels / 2)[0]
    assert one[0].high == pytest.approx(half.high)
    assert one[1].low == pytest.approx(-half.high)
    decisions, _ = simulate(loss=0.0, spread=6.0, claims=8, expected=None)
    false = np.isin(decisions, (LOWER, HIGHER)).any(axis=1).mean()
    assert false < design.family_level + 2 * (design.family_level / 2000) ** 0.5


def test_a_loss_is_found_with_half_of_the_seeds() -> None:
    decisions, seeds = simulate(loss=10.0, spread=6.0, claims=1)
    assert (decisions == SUPPORTED).mean() > 0.99
    assert seeds.mean() < 5.3


def test_precision_with_a_base_whose_seeds_do_not_grow() -> None:
    """Estimates of the difference have the covariance of a Brownian motion at these times."""
    design, rng = Design(looks=(2, 3, 6), base_seeds=3), np.random.default_rng(0)
    ours, base = rng.standard_normal((200_000, 6)), rng.standard_normal((200_000, 3))
    gaps = np.array([ours[:, :n].mean(1) - base.mean(1) for n in design.looks])
    covariance = np.cov(gaps)
    assert design.fractions == pytest.approx((0.6, 0.75, 1.0))
    assert covariance[2, 2] / np.diag(covariance) == pytest.approx(design.fractions, rel=0.02)
    assert covariance[0, 1:] == pytest.approx(np.diag(covariance)[1:], rel=0.02)


def test_each_claim_has_its_margin() -> None:
    at = Found(np.array([[3.0, 3.0]]), np.full((1, 2), 0.5), np.full((1, 2), SURE))
    decisions, _ = run_study(Design(looks=(5,)), [at], ["same", "same"], [5.0, 3.5])
    assert decisions.tolist() == [[SUPPORTED, CONTRADICTED]]


@pytest.mark.parametrize(
    ("loss", "decision", "limit"), [(0.0, CONTRADICTED, 0.05), (5, SUPPORTED, 0.05)]
)
def test_error_rates_against_a_base_with_three_seeds(
    loss: float, decision: str, limit: float
) -> None:
    """Equal agents are rarely called different, and agents that differ by the margin equal."""
    design = Design(
        looks=(2, 3, 5, 10), claim_level=0.05, family_level=0.05, against_level=0.05, base_seeds=3
    )
    rng = np.random.default_rng(0)
    ours = 4.0 * rng.standard_normal((4000, 1, 5, 10)) - loss
    base = 4.0 * rng.standard_normal((4000, 1, 5, 3))
    at = [Found(*mean_over_tasks(*welch(ours[..., :n], base))) for n in design.looks]
    decisions, _ = run_study(design, at, ["same"], 5.0)
    assert (decisions == decision).mean() < limit + 3 * (limit / 4000) ** 0.5
