"""Margins and verdicts of the comparison with the published curves and scores."""

from __future__ import annotations

import numpy as np

from analysis.stats.equivalence import LEVEL, mean_over_tasks, p_values, quantile
from analysis.stats.multiplicity import directed

TASK_MARGIN = 10.0
DOMAIN_MARGINS = {"tdmpc2": 3.0}
OTHER_MARGIN = 5.0
"""Equivalence margins in points: per task, per domain by method, and per domain for others. Where
the published seeds vary too much for a domain's margin, it is the smallest that they can settle."""
LARGEST_MARGIN = 10.0
"""A domain that needs a larger margin, in points, cannot be settled."""
POWER = 0.8
"""Probability with which equal agents must be called reproduced for a margin to be settled."""
LOSS, LOSS_POWER = 10.0, 0.95
"""Loss in points, and the probability of finding it, for which tests of a gate share a level."""
OPEN = "not enough data"
"""Verdict if the difference is neither equivalent nor significant."""
SO_FAR = "reproduced so far"
"""Verdict if the difference is equivalent, but below the full budget."""
UNSETTLED = "cannot be settled"
"""Verdict on a domain that no number of our seeds settles; it does not decide the exit code."""
NOT_JUDGED = "open"
"""Verdict on a claim without runs or without a published number."""
PAPER_UPDATES = 10_000_000
"""Updates after which the paper evaluates its multi-task agents."""


def smallest_margin(variances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the smallest margin that endless seeds of ours could settle, in points, `(...,)`.

    Equal agents are called reproduced with the probability `POWER` if the margin is
    error · (t + z), where the error is that of the published mean over the tasks alone, t the
    quantile of the equivalence test and z the normal quantile of (1 + `POWER`) / 2.

    Args:
        variances: variance of each task's published seeds, in points², `(..., num_tasks)`.
        counts: number of these seeds, at least 2, `(num_tasks,)`.
    """
    _, error, freedom = _mean_error(variances, 1 / counts, counts)
    return error * (quantile(1 - LEVEL, freedom) + quantile((1 + POWER) / 2, np.inf))


def domain_margin(method: str, smallest: float, wanted: float | None) -> tuple[float, bool]:
    """Return the margin of the mean over a domain, and whether it can be settled.

    Args:
        method: method of the runs.
        smallest: result of `smallest_margin`.
        wanted: margin that the user asks for, in points; None for the default.
    """
    if wanted is not None:
        return wanted, smallest <= wanted
    usual = DOMAIN_MARGINS.get(method, OTHER_MARGIN)
    margin = max(usual, np.ceil(10 * smallest) / 10)
    return float(margin), bool(margin <= LARGEST_MARGIN)


def level_for_loss(variances: np.ndarray, counts: np.ndarray, num_ours: np.ndarray) -> np.ndarray:
    """Return the level at which a loss of `LOSS` points is found with `LOSS_POWER`, `(...,)`.

    The variances are those of the published seeds, on both sides.

    Args:
        variances: variance of each task's published seeds, in points², `(..., num_tasks)`.
        counts: number of these seeds, at least 2, `(num_tasks,)`.
        num_ours: number of our seeds, `(num_tasks,)`.
    """
    _, error, freedom = _mean_error(variances, 1 / counts + 1 / num_ours, counts)
    found = np.minimum(error * quantile(LOSS_POWER, freedom) - LOSS, 0)
    return np.clip(directed(p_values(found, error, freedom), found), 1e-4 * LEVEL, LEVEL)


def _mean_error(
    variances: np.ndarray, shares: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return zero, standard error and freedom of a mean over tasks of `shares` of the variances."""
    errors = np.sqrt(variances * shares)
    return mean_over_tasks(np.zeros_like(errors), errors, counts - 1)
