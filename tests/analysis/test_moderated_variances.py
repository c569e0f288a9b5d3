"""Variances of few seeds that are drawn towards the usual variance of their task."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.equivalence import welch
from analysis.stats.group_sequential import Design
from analysis.stats.moderated_variances import moderated_welch, usual_variance


def test_a_hand_computed_difference() -> None:
    ours, theirs = np.array([10.0, 10.0]), np.array([0.0, 4.0])  # variances 0 and 8
    usual = usual_variance([ours, theirs, np.array([0.0, 2.0])])
    assert usual == pytest.approx(10 / 3)
    value, error, freedom = moderated_welch(ours, theirs, usual, prior=2.0)
    terms = [(2 * usual + 0) / 3 / 2, (2 * usual + 8) / 3 / 2]
    assert value == 8.0
    assert error == pytest.approx(sum(terms) ** 0.5)
    assert freedom == pytest.approx(sum(terms) ** 2 / sum(term**2 / 3 for term in terms))


def test_without_a_prior_it_is_welch() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 7, 3))
    least = (np.full(7, 0.5), np.full(7, 0.5))
    found = moderated_welch(ours, theirs, 123.0, 0.0, least)
    np.testing.assert_allclose(found, welch(ours, theirs, least))


def test_the_least_variance_holds() -> None:
    same = np.array([1.0, 1.0])
    _, error, _ = moderated_welch(same, same, 0.0, 2.0, (3.0, 1.0))
    assert error == pytest.approx(2**0.5)


def test_three_series_know_no_usual_variance() -> None:
    design = Design(prior_freedom=2.0)
    assert [design.prior_of(series) for series in (2, 3, 4, 6)] == [0.0, 0.0, 0.5, 1.0]
