"""Common evaluations of our seeds and the published ones: the scores that a verdict compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.horizons import position, side_of
from analysis.stats.ragged_curves import COMPLETED, ENDED, ScoreCurves, paper_budget
from analysis.stats.rules import LAST_EVALUATIONS, RULES, Rule, is_near


@dataclass(frozen=True)
class CommonScores:
    """Scores of one task on both sides, each the mean of the last common evaluations.

    Attributes:
        env_steps: steps of those evaluations, ascending; empty if there are none.
        rows: row numbers of our seeds that take part, `(num_seeds,)`.
        ours: scores of our seeds in points, `(num_seeds,)`.
        theirs: scores of the published seeds in points, `(num_seeds,)`.
        budget_share: last step as a fraction of the full budget: the paper's, or the last published
            evaluation if that is earlier.
        left_out: seeds that do not take part, or the reason why there is no comparison.
        carried: seeds that take part with a score from before the last of those steps.
    """

    env_steps: np.ndarray
    rows: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    budget_share: float
    left_out: tuple[str, ...]
    carried: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the comparison is at the full budget."""
        return bool(is_near(self.budget_share, 1.0))


def common_scores(
    curves: ScoreCurves, ours: np.ndarray, theirs: np.ndarray, rule: Rule
) -> CommonScores:
    """Return the scores of one task at the last evaluations that both sides have.

    Seeds of ours that are far behind the others, or before the first published evaluation, are left
    out (`horizons.side_of`). Step 0 never counts. If no step of ours is a published one, the
    published curves are interpolated between their evaluations.

    Args:
        curves: our runs and the published curves.
        ours: row numbers of our seeds.
        theirs: row numbers of the published seeds.
        rule: treatment of missing and repeated evaluations of our seeds.
    """
    published = curves.common_grid(theirs)
    published = published[published > 0]
    if not len(published):
        return _none(["no published evaluation after step 0"], curves, ours)
    side = side_of(curves, ours, published[-1], since=published[0])
    kept, last, left_out = side.rows, side.last, list(side.left_out)
    if last < published[0]:
        why = f"ends before the first published evaluation at {published[0]:,}"
        return _none([*left_out, *_ended(curves, kept, published[0]), why], curves, ours)
    recorded = curves.common_grid(kept, last)
    recorded = recorded[recorded >= published[0]]
    beyond = published[(published > curves.last_steps[kept].max()) & (published <= last)]
    steps = np.union1d(np.intersect1d(recorded, published), beyond)
    steps = steps if len(steps) else recorded
    mine = 100 * curves.values(kept, steps, rule, normalized=True)
    other = 100 * curves.values(theirs, steps, RULES["linear"], normalized=True)
    known = ~(np.isnan(mine).any(axis=0) | np.isnan(other).any(axis=0))
    if not known.any():
        return _none([*left_out, "no evaluation that all seeds of both sides have"], curves, ours)
    chosen = np.flatnonzero(known)[-LAST_EVALUATIONS:]
    run = curves.runs.loc[ours[0]]
    full = min(paper_budget(run["task"], run["obs"]), published[-1])
    share = min(1.0, float(steps[chosen[-1]] / full))
    scores, others = (side[:, chosen].mean(axis=1) for side in (mine, other))
    carried = tuple(f"{one} and keeps its score" for one in _ended(curves, kept, steps[chosen[-1]]))
    return CommonScores(steps[chosen], kept, scores, others, share, tuple(left_out), carried)


def _ended(curves: ScoreCurves, rows: np.ndarray, step: float) -> list[str]:
    """Return a message for each seed that ended before a step without having completed."""
    early = curves.runs.loc[rows, "state"].isin(set(ENDED) - {COMPLETED})
    return [position(curves, row) for row in rows[early & (curves.last_steps[rows] < step)]]


def _none(left_out: list[str], curves: ScoreCurves, rows: np.ndarray) -> CommonScores:
    """Return the result without a comparison, with the last step that our seeds recorded."""
    run = curves.runs.loc[rows[0]]
    share = float(curves.last_steps[rows].min() / paper_budget(run["task"], run["obs"]))
    empty = np.array([])
    return CommonScores(np.array([], int), np.array([], int), empty, empty, share, tuple(left_out))
