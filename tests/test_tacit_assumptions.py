"""What we assume of others: a test here that fails says which workaround to revisit."""

from __future__ import annotations

import warnings

import numpy as np
from rliable import library as rly


def interval(scores: np.ndarray, *, random_state: np.random.RandomState | None = None):
    """Interval of the mean over scores `(num_runs, num_tasks)` as rliable gives it, `(2, 1)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arch's, on any random_state
        _, intervals = rly.get_interval_estimates(
            {"x": scores},
            lambda x: np.array([x.mean()]),
            reps=200,
            random_state=random_state,
        )
    return intervals["x"]


SCORES = np.random.default_rng(0).random((5, 3))


def test_rliable_ignores_random_state():
    first, second = (interval(SCORES, random_state=np.random.RandomState(0)) for _ in range(2))
    assert not np.array_equal(first, second)


def test_rliable_draws_from_numpys_global_generator():
    intervals = []
    for _ in range(2):
        np.random.seed(0)
        intervals.append(interval(SCORES))
    assert np.array_equal(*intervals)


def test_rliable_gives_one_seed_an_interval_of_width_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = interval(SCORES[:1])
    assert low == high


def test_one_nan_poisons_rliables_interval_without_a_warning():
    scores = SCORES.copy()
    scores[0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(interval(scores)).all()
