"""Smallest variances that scores of seeds can have, for tasks whose few seeds happen to agree.

Three equal scores do not show that the variance is zero. A success rate of N episodes has at least
their binomial variance. Returns have at least the lower quartile of the variances of the domain's
tasks in the published curves of the method. In a study, nearly equal returns of one side have at
least the variance that a value as rare as no seed of this side shows would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.intervals import ROUNDING

QUARTILE = 0.25
"""Quantile of the variances of similar tasks below which no variance is believed."""


@dataclass(frozen=True)
class LeastVariance:
    """Rule for the smallest variance of the scores of one side of a task.

    Attributes:
        num_episodes: episodes that each success rate averages; 0 for returns.
        variance: smallest variance of returns, in points².
    """

    num_episodes: float = 0.0
    variance: float = 0.0

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the smallest variance in points², `(...,)`.

        Args:
            scores: scores of the seeds in points, `(..., num_seeds)`.
        """
        if self.num_episodes:
            return binomial_variance(scores, self.num_episodes)
        return np.full(scores.shape[:-1], self.variance)


TaskLeast = tuple[LeastVariance, LeastVariance]
"""Rules of both sides of a task."""


def binomial_variance(scores: np.ndarray, num_episodes: float) -> np.ndarray:
    """Return the binomial variance of success rates, in points².

    p (1 − p) / N, with N episodes per score and the estimate p = (k + ½) / (n N + 1) from the k
    successes of all n seeds (Jeffreys), which is never 0 or 1.

    Args:
        scores: success rates of the seeds in percent, `(..., num_seeds)`.
        num_episodes: episodes that each score averages.
    """
    total = scores.shape[-1] * num_episodes
    share = (np.mean(scores, -1) / 100 * total + 0.5) / (total + 1)
    return 100**2 * share * (1 - share) / num_episodes


def lower_quartile(variances: np.ndarray) -> np.ndarray:
    """Return the lower quartile of the variances of similar tasks.

    Args:
        variances: variances over seeds, in points², `(..., num_tasks)`.
    """
    return np.quantile(variances, QUARTILE, axis=-1)


def tied_variance(scores: np.ndarray, others: np.ndarray, within: float = 0.0) -> np.ndarray:
    """Return the least variance of returns that are all nearly equal, in points²; 0 for others.

    Seeds of a task on which a seed learns or fails often have about equal scores.
    p (1 − p) D², with the range D of the scores of both sides, and the estimate
    p = ½ / (n + 1) of how often a seed would score D away (Jeffreys).

    Args:
        scores: scores of the seeds of this side in points, `(..., num_seeds)`.
        others: scores of the other side in points, `(..., num_other_seeds)`.
        within: largest range of the scores of this side that counts as nearly equal, as a share of
            D.
    """
    share = 0.5 / (scores.shape[-1] + 1)
    distance = np.ptp(np.concatenate([scores, others], axis=-1), axis=-1)
    tied = np.ptp(scores, axis=-1) <= np.maximum(within * distance, ROUNDING)
    tied &= distance > ROUNDING
    return np.where(tied, share * (1 - share) * distance**2, 0.0)


def hidden_failure_rate(num_seeds: int) -> float:
    """Return the failure rate f at which no seed fails in half of all cases: (1 − f)^n = ½."""
    return float(1 - 0.5 ** (1 / num_seeds))
