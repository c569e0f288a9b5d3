"""Smallest variances of the scores that a comparison with the published curves uses."""

from __future__ import annotations

import numpy as np

from analysis.records.evaluations import is_success
from analysis.records.sources import PUBLISHED
from analysis.stats.common_evaluations import CommonScores
from analysis.stats.least_variance import LeastVariance, TaskLeast, lower_quartile
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import LAST_EVALUATIONS, RULES


class TaskVariances:
    """Least variances of tasks, see `least_variance.py`; similar tasks are read once.

    Args:
        curves: our runs and the published curves.
    """

    def __init__(self, curves: ScoreCurves) -> None:
        self._curves = curves
        self._pooled: dict[tuple[str, ...], float] = {}

    def of(self, common: CommonScores, theirs: np.ndarray) -> TaskLeast:
        """Return the smallest variances of our and the published scores of a task.

        Args:
            common: scores of the task; without any, both are 0.
            theirs: row numbers of the published seeds.
        """
        runs, evaluations = self._curves.runs, len(common.env_steps)
        if not evaluations:
            return LeastVariance(), LeastVariance()
        if is_success(runs.loc[common.rows[0], "score"]):
            ours, others = (
                LeastVariance(evaluations * float(runs.loc[rows, "eval_episodes"].min()))
                for rows in (common.rows, theirs)
            )
            return ours, others
        pooled = self._of_kind(tuple(runs.loc[theirs[0], ["method", "obs", "domain"]]))
        return LeastVariance(variance=pooled), LeastVariance(variance=pooled)

    def _of_kind(self, kind: tuple[str, ...]) -> float:
        """Return the smallest variance of returns, from published tasks of a method and domain."""
        if kind not in self._pooled:
            runs = self._curves.runs
            same = (runs[["method", "obs", "domain"]] == list(kind)).all(axis=1)
            variances = [
                self._variance(rows.index.to_numpy())
                for _, rows in runs[same & (runs["source"] == PUBLISHED)].groupby("task")
                if len(rows) > 1
            ]
            known = np.array([one for one in variances if np.isfinite(one)])
            self._pooled[kind] = float(lower_quartile(known)) if len(known) else 0.0
        return self._pooled[kind]

    def _variance(self, rows: np.ndarray) -> float:
        """Return the variance over seeds of the mean of a task's last published evaluations.

        Step 0 never counts; NaN if there is no other, or if not all seeds have a score.
        """
        steps = self._curves.common_grid(rows)
        steps = steps[steps > 0][-LAST_EVALUATIONS:]
        if not len(steps):
            return float("nan")
        values = self._curves.values(rows, steps, RULES["linear"], normalized=True)
        return float(np.var(100 * values.mean(axis=1), ddof=1))
