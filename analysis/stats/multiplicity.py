"""Corrections of p-values for several tests: by Holm, and by Benjamini and Hochberg."""

from __future__ import annotations

import numpy as np

LOSS_SHARE = 0.7
"""Share of the level of a gate that is spent on losses; a gain does not fail the gate."""


def directed(p_values: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return p-values of tests that spend `LOSS_SHARE` of their level on losses.

    A test at level α finds a loss if its one-sided p-value is below `LOSS_SHARE` · α, and a gain
    if it is below (1 − `LOSS_SHARE`) · α. The share is chosen by `benchmarks/verdicts.py`.

    Args:
        p_values: two-sided p-values, `(...,)`; NaN for a test that cannot be computed.
        value: differences, negative for a loss, `(...,)`.
    """
    return np.minimum(1, p_values / (2 * np.where(value < 0, LOSS_SHARE, 1 - LOSS_SHARE)))


def holm(p_values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return p-values adjusted so that the family-wise error is controlled (Holm 1979).

    With the quotients p_i / w_i in ascending order, the adjusted values are the running maximum of
    min(1, p_i Σ_{k ≥ i} w_k / w_i); without weights, p_i times the number of remaining tests.

    Args:
        p_values: `(num_tests,)`, NaN for a test that cannot be computed, which does not count.
        weights: share of the level that each test receives first, positive, `(num_tests,)`; they
            must not depend on the outcomes of the tests.
    """
    weights = np.ones_like(p_values) if weights is None else weights
    order = np.argsort(p_values / weights, kind="stable")  # NaN last
    order = order[: np.count_nonzero(~np.isnan(p_values))]
    remaining = np.cumsum(weights[order][::-1])[::-1]
    adjusted = np.full_like(p_values, np.nan)
    steps = np.minimum(1, p_values[order] * remaining / weights[order])
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def false_discovery(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995).

    With n p-values in ascending order, they are the running minimum, from the largest one down, of
    p_i n / i.

    Args:
        p_values: `(num_tests,)`, NaN for a test that cannot be computed, which does not count.
    """
    order = np.argsort(p_values, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(p_values))]
    raw = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order] = np.minimum.accumulate(raw[::-1])[::-1]
    return adjusted


def discovery_level(p_values: np.ndarray, place: int, level: float) -> float:
    """Return the largest p-value at which a test is a discovery, if the others stay as they are.

    That is `level` · R / n, with n p-values and R discoveries if the p-value of this test were 0
    (Benjamini and Hochberg 1995).

    Args:
        p_values: `(num_tests,)`, NaN for a test that cannot be computed, which does not count.
        place: index of the test, whose p-value is not NaN.
        level: false discovery rate.
    """
    best = p_values.copy()
    best[place] = 0.0
    discoveries = np.count_nonzero(false_discovery(best) < level)
    return level * discoveries / np.count_nonzero(~np.isnan(best))


def level_shares(needs: np.ndarray, level: float) -> np.ndarray:
    """Divide a level among tests so that as many as possible have the power that they aim at.

    A part of the level, `_EQUAL`, is divided equally. The rest goes to the test with the smallest
    need first, of which `_USED` suffices, because needs of tests with few degrees of freedom are
    overestimated; what remains after the last test that can be served is divided equally among the
    others. Both constants were chosen by `benchmarks/verdicts.py`.

    Args:
        needs: level at which each test has that power, positive, `(num_tests,)`; infinite for a
            test that decides nothing, which receives `_LEAST` of an equal share.
        level: level of the family.

    Returns:
        Weights for `holm`, `(num_tests,)`, with the sum 1.
    """
    deciding = np.isfinite(needs)
    equal, served_needs = level * _EQUAL, needs * _USED
    shares = np.where(deciding, equal, equal * _LEAST) / max(deciding.sum(), 1)
    order = np.argsort(needs, kind="stable")[: deciding.sum()]
    served = order[np.cumsum(served_needs[order]) <= level - equal]
    rest = level - equal - served_needs[served].sum()
    others = order[len(served) :] if len(served) < len(order) else order
    shares[served] += served_needs[served]
    shares[others] += rest / max(len(others), 1)
    return shares / shares.sum()


_EQUAL, _USED = 0.15, 0.5
_LEAST = 0.02
