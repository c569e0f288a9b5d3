"""Margins and verdicts of the comparison with the published curves and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.stats.equivalence import LEVEL, mean_over_tasks, p_values, quantile

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


def smallest_margin(theirs: Sequence[np.ndarray]) -> float:
    """Return the smallest margin that endless seeds of ours could settle, in points.

    Equal agents are called reproduced with the probability `POWER` if the margin is
    error · (t + z), where the error is that of the published mean over the tasks alone, t the
    quantile of the equivalence test and z the normal quantile of (1 + `POWER`) / 2.

    Args:
        theirs: published scores of each task, in points, `(num_seeds,)` each.
    """
    error, freedom = _mean_error(theirs, [1 / len(own) for own in theirs])
    return float(error * (quantile(1 - LEVEL, freedom) + quantile((1 + POWER) / 2, np.inf)))


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


def level_for_loss(theirs: Sequence[np.ndarray], num_ours: Sequence[int]) -> float:
    """Return the level at which a loss of `LOSS` points is found with `LOSS_POWER`.

    The variances are those of the published seeds, on both sides.

    Args:
        theirs: published scores of each task, in points, `(num_seeds,)` each.
        num_ours: number of our seeds on each task.
    """
    shares = [1 / len(own) + 1 / count for own, count in zip(theirs, num_ours, strict=True)]
    error, freedom = _mean_error(theirs, shares)
    if error == 0 or np.isnan(error):
        return LEVEL
    found = error * quantile(LOSS_POWER, freedom) - LOSS
    level = p_values(*(np.array([x]) for x in (min(found, 0.0), error, freedom)))[0]
    return float(np.clip(level, 1e-4 * LEVEL, LEVEL))


def _mean_error(theirs: Sequence[np.ndarray], shares: Sequence[float]) -> tuple[float, float]:
    """Return standard error and freedom of a mean over tasks of the variances times `shares`."""
    variances = np.array([np.var(own, ddof=1) if len(own) > 1 else np.nan for own in theirs])
    freedom = np.array([max(len(own) - 1, 1) for own in theirs], float)
    errors = np.sqrt(variances * shares)
    _, error, pooled = mean_over_tasks(np.zeros_like(errors), errors, freedom)
    return float(error), float(pooled)
