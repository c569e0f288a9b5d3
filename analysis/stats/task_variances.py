"""Smallest variances of the scores that a comparison with the published curves uses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.records.evaluations import is_success
from analysis.records.sources import PUBLISHED
from analysis.stats.common_evaluations import CommonScores
from analysis.stats.least_variance import LeastVariance, TaskLeast, lower_quartile
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import LAST_EVALUATIONS, RULES


class PublishedSpread(NamedTuple):
    """Spread of the published scores of a task.

    Attributes:
        variance: variance over seeds, at least `least`, in points².
        least: smallest variance, in points².
        num_seeds: number of seeds.
    """

    variance: float
    least: float
    num_seeds: int


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
            return self._of_rates(common.rows, evaluations), self._of_rates(theirs, evaluations)
        pooled = self._of_returns(theirs)
        return pooled, pooled

    def published(self, rows: np.ndarray, env_steps: float = np.inf) -> PublishedSpread | None:
        """Return the spread of the published scores of a task, as a verdict assumes it.

        A score is the mean of the last five evaluations up to a step; step 0 never counts.

        Args:
            rows: row numbers of the published seeds.
            env_steps: the step.

        Returns:
            None if fewer than two seeds have a score.
        """
        scores, evaluations = self._scores(rows, env_steps)
        scores = scores[~np.isnan(scores)]
        if len(scores) < 2:
            return None
        success = is_success(self._curves.runs.loc[rows[0], "score"])
        rule = self._of_rates(rows, evaluations) if success else self._of_returns(rows)
        least = float(rule.of(scores))
        return PublishedSpread(max(float(np.var(scores, ddof=1)), least), least, len(scores))

    def _of_rates(self, rows: np.ndarray, evaluations: int) -> LeastVariance:
        """Return the rule of means of several success rates."""
        return LeastVariance(
            evaluations * float(self._curves.runs.loc[rows, "eval_episodes"].min())
        )

    def _of_returns(self, theirs: np.ndarray) -> LeastVariance:
        """Return the rule of returns of the task with some published seeds."""
        kind = self._curves.runs.loc[theirs[0], ["method", "obs", "domain"]]
        return LeastVariance(variance=self._of_kind(tuple(kind)))

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
        """Return the variance over seeds of a task's published scores; NaN if one has none."""
        scores, _ = self._scores(rows)
        return float(np.var(scores, ddof=1)) if len(scores) else float("nan")

    def _scores(self, rows: np.ndarray, env_steps: float = np.inf) -> tuple[np.ndarray, int]:
        """Return the mean of the last evaluations of each seed up to a step, and their number.

        Without evaluations after step 0, there are no scores.
        """
        steps = self._curves.common_grid(rows, env_steps)
        steps = steps[steps > 0][-LAST_EVALUATIONS:]
        if not len(steps):
            return np.array([]), 0
        values = self._curves.values(rows, steps, RULES["linear"], normalized=True)
        return 100 * values.mean(axis=1), len(steps)
