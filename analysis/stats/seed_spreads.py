"""Spread of final scores over seeds, as plans of comparisons assume it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.records.evaluations import is_success
from analysis.stats.least_variance import binomial_variance
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import LAST_EVALUATIONS, RULES, is_near


@dataclass(frozen=True)
class Spread:
    """Variance of one final score over seeds.

    Attributes:
        variance: in points².
        freedom: degrees of freedom of this estimate: the number of seeds − 1.
        env_step: last env step that it is computed from.
    """

    variance: float
    freedom: int
    env_step: int


def spread_of(curves: ScoreCurves, rows: np.ndarray, env_steps: int) -> Spread | None:
    """Return the spread of the score of one task at a planned env step.

    It is the variance over seeds at one evaluation, averaged over the last five common evaluations
    up to that step; step 0 never counts. Success rates have at least their binomial variance.
    Evaluations of one seed are not independent, so each seed counts once in the degrees of freedom.

    Args:
        curves: the curves.
        rows: row numbers of the seeds of one task.
        env_steps: planned env step.

    Returns:
        None if fewer than two seeds were evaluated near the step (`rules.is_near`), or if the
        task has no normalized score.
    """
    kept = rows[is_near(curves.last_steps[rows], env_steps)]
    if len(kept) < 2:
        return None
    steps = curves.common_grid(kept, env_steps)
    steps = steps[steps > 0][-LAST_EVALUATIONS:]
    if not len(steps) or not is_near(steps[-1], env_steps):
        return None
    scores = 100 * curves.values(kept, steps, RULES["linear"], normalized=True)
    scores = scores[:, ~np.isnan(scores).any(axis=0)]
    if not scores.size:
        return None
    variance = float(np.var(scores, axis=0, ddof=1).mean())
    if is_success(curves.runs.loc[kept[0], "score"]):
        episodes = float(curves.runs.loc[kept, "eval_episodes"].min())
        variance = max(variance, float(binomial_variance(scores.ravel(), episodes)))
    return Spread(variance, len(kept) - 1, int(steps[-1]))
