"""Variances of few seeds, drawn towards the variance that the same task usually has.

Two or three seeds that happen to agree do not show that scores do not spread. Where several series
of runs have the same task, each variance is therefore the weighted mean

    (d₀ s₀² + (n − 1) s²) / (d₀ + n − 1)

of its own estimate s² from n seeds and of s₀², the mean of the estimates of all series, which
counts as d₀ degrees of freedom (Smyth 2004). The result has d₀ + n − 1 degrees of freedom. With a
small d₀, a series with a spread of its own keeps it as soon as it has some more seeds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats.equivalence import welch_with


def usual_variance(series: list[np.ndarray]) -> np.ndarray:
    """Return the mean over series of the variance over seeds, `(...,)`.

    Args:
        series: scores of each series on the same task, `(..., num_seeds)`, at least two seeds.
    """
    return np.mean([np.var(scores, -1, ddof=1) for scores in series], axis=0)


def moderated_welch(
    ours: np.ndarray,
    theirs: np.ndarray,
    usual: ArrayLike,
    prior: float,
    least: tuple[ArrayLike, ArrayLike] = (0.0, 0.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return differences of means, standard errors and degrees of freedom, each `(...,)`.

    As `equivalence.welch`, with moderated variances.

    Args:
        ours: scores of our seeds, `(..., num_seeds)`, at least two.
        theirs: scores of the other side, `(..., num_seeds)`, at least two.
        usual: result of `usual_variance`, `(...,)`.
        prior: its degrees of freedom, d₀.
        least: smallest variance of each side, `(...,)`.
    """
    variances, freedoms = [], []
    for side, smallest in zip((ours, theirs), least, strict=True):
        own = side.shape[-1] - 1
        mixed = (prior * np.asarray(usual) + own * np.var(side, -1, ddof=1)) / (prior + own)
        variances.append(np.maximum(mixed, smallest))
        freedoms.append(prior + own)
    return welch_with(ours, theirs, variances, freedoms)
