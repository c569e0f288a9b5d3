"""Decisions of studies: a function of the scores of their runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.stats.ablation_claims import Expected
from analysis.stats.group_sequential import POSITIVE, Found, regions
from sweeps.studies.decisions import WAITING, judge
from sweeps.studies.scores import Scores
from tests.sweeps.example_study import CLAIM, DESIGN, STUDY, scores


def test_later_seeds_do_not_change_earlier_looks() -> None:
    some = judge(STUDY, scores(1.0, spread=6.0, until=3))
    every = judge(STUDY, scores(1.0, spread=6.0))
    assert some[:2] == every[:2]
    assert some[2][0].decision == WAITING
    assert some[2][0].missing == 8


def test_equal_success_rates_have_a_spread() -> None:
    """Two seeds that all succeed against two that all fail once do not decide a claim."""
    both = scores(0.0, episodes=10)
    points = {key: np.full(5, 90.0 if "no-x" in key else 100.0) for key in both.points}
    assert judge(STUDY, Scores(points, both.episodes))[0][0].decision == "next look"


def test_equal_returns_of_each_side_are_no_proof_with_two_seeds() -> None:
    """With two possible scores, each equally frequent, one study in 16 begins like this."""
    points = {key: np.full(5, 0.0 if "no-x" in key else 90.0) for key in scores(0).points}
    one = replace(STUDY, tasks={"a": 100})
    looks = judge(one, Scores(points, {"a": None}))
    assert [look[0].decision for look in looks] == ["next look", "next look", "supported"]


@pytest.mark.parametrize("failed", [0.0, 1.0])
@pytest.mark.parametrize("expected", ["lower", None])
def test_two_possible_scores_keep_the_error_rate(expected: Expected | None, failed: float) -> None:
    """Equal agents whose seeds learn (about 70 points) or fail, on one task.

    Failed seeds score 0, or 2 points with a spread of 1.
    """
    rng, found, studies = np.random.default_rng(0), [], 400
    one = replace(STUDY, tasks={"a": 100}, claims=(replace(CLAIM, expected=expected),))
    for _ in range(studies):
        noise, learned = rng.standard_normal((2, 2, 5)), rng.random((2, 5)) < 0.5
        drawn = np.where(learned, 70 + 3 * noise[0], failed * (2 + noise[1]))
        points = {("tdmpc2", name, "a"): drawn[i] for i, name in enumerate(("default", "no-x"))}
        found.append(judge(one, Scores(points, {"a": None}))[-1][0].decision)
    wrong = sum(decision in POSITIVE for decision in found)
    assert wrong <= 0.025 * studies + 3 * (0.025 * studies) ** 0.5


def test_a_supported_claim_has_the_regions_that_it_was_tested_with() -> None:
    """Its share of the level passes on to the claims that are still open."""
    names = ("a", "b", "c")
    claims = tuple(replace(CLAIM, name=name, variant=name) for name in names)
    drawn = scores(0.0, spread=9.0).points
    points = {
        ("tdmpc2", variant, task): drawn["tdmpc2", "default", task] - 50 * (variant == "a")
        for task in STUDY.tasks
        for variant in ("default", *names)
    }
    looks = judge(replace(STUDY, claims=claims), Scores(points, dict.fromkeys(STUDY.tasks)))
    assert [[one.decision in POSITIVE for one in look] for look in looks[:2]] == [
        [False, False, False],
        [True, False, False],
    ]
    for one, num_open in zip(looks[1], (3, 2, 2), strict=True):
        assert one.gap is not None
        level = DESIGN.level_of(num_open)
        assert list(one.regions) == regions(DESIGN, 1, Found.of(one.gap), "lower", 5.0, level)
