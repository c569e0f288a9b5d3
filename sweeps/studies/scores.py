"""Scores of a study: those of its runs, and the published ones that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.records.evaluations import is_success
from analysis.records.load import load, load_curves
from analysis.records.source_options import released_curves
from analysis.records.sources import PUBLISHED as PUBLISHED_SOURCE
from analysis.records.studies import PUBLISHED
from analysis.stats.ablation_effects import POINTS
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from sweeps.planning.planned_run import PlannedRun
from sweeps.studies.study import Study
from tdmpc2.common.system.texts import counted

DIVERGED = "DIVERGED"
Key = tuple[str, str, str]
"""Method, variant and task."""


@dataclass(frozen=True)
class Scores:
    """Scores of the runs of a study.

    Attributes:
        points: scores in points of each method, variant and task, `(num_seeds,)` in the order of
            the study's seeds; NaN for a run that has not ended, or has no evaluation. Those of the
            variant `PUBLISHED` are all published seeds.
        episodes: episodes that each score of a task averages, if it is a success rate; else None.
        seeds: the study's seeds.
    """

    points: Mapping[Key, np.ndarray]
    episodes: Mapping[str, int | None]
    seeds: tuple[int, ...] = ()

    def of(self, series: tuple[str, str], task: str, seeds: int) -> np.ndarray:
        """Return the scores of the first seeds of a series, or all published ones.

        Args:
            series: method and variant.
            task: name of the task.
            seeds: seeds on each side.
        """
        found = self.points[(*series, task)]
        return found if series[1] == PUBLISHED else found[:seeds]

    def describe_missing(self, planned: Sequence[PlannedRun]) -> str:
        """Describe which of some runs have no score."""
        without = [
            str(run.directory)
            for run in planned
            if np.isnan(
                self.points[run.spec.method, run.spec.variant, run.spec.task][
                    self.seeds.index(run.spec.seed)
                ]
            )
        ]
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        runs, listed = counted(len(without), "run"), ", ".join(without[:3])
        have = "has" if len(without) == 1 else "have"
        return f"{runs} {have} no score at the step of the study: {listed}{more}"


def read_scores(study: Study, planned: Sequence[PlannedRun], runs: Path) -> Scores:
    """Read the scores of all runs of a study that have ended.

    Args:
        study: the study.
        planned: runs of all its series, tasks and seeds.
        runs: folder of all runs.

    Raises:
        UserError: a claim compares with released curves that are missing.
    """
    curves = ScoreCurves(load(runs))
    published = _Published(study)
    rows = {str(one.directory): index for index, one in enumerate(curves.runs.itertuples())}
    points: dict[Key, np.ndarray] = {}
    episodes: dict[str, int | None] = dict.fromkeys(study.tasks)
    for run in planned:
        spec = run.spec
        own = points.setdefault(
            (spec.method, spec.variant, spec.task), np.full(len(study.seeds), np.nan)
        )
        row = rows.get(str(run.directory))
        if row is None or spec.seed not in study.seeds:
            continue
        steps = _last_steps(study, curves, row, published)
        if not len(steps):
            continue
        own[study.seeds.index(spec.seed)] = _mean_score(curves, [row], steps)[0]
        if curves.runs.at[row, "state"] != DIVERGED:
            published.add(points, spec.method, spec.task, steps)
        if is_success(curves.runs.at[row, "score"]):
            number = int(str(curves.runs.at[row, "eval_episodes"])) * len(steps)
            episodes[spec.task] = min(number, episodes[spec.task] or number)
    published.add_rest(points)
    return Scores(points, episodes, study.seeds)


def _last_steps(study: Study, curves: ScoreCurves, row: int, published: _Published) -> np.ndarray:
    """Return the steps of the evaluations that the score of a run averages.

    Empty if the run has no value at the step at which the study compares. A run that diverged
    before it keeps its last value, be it that of step 0: its earlier evaluations do not count.
    """
    method, task = (str(curves.runs.at[row, name]) for name in ("method", "task"))
    end, (low, high) = study.tasks[task], published.window(task)
    if np.isnan(curves.values([row], np.array([end]), RULES["linear"]))[0, 0]:
        return np.array([])
    if curves.runs.at[row, "state"] == DIVERGED and curves.last_steps[row] < min(end, high):
        return np.repeat(min(end, high), study.evaluations)
    steps = _counted(curves.common_grid([row], min(end, high)), low)
    return published.shared(method, task, steps)[-study.evaluations :]


def _counted(steps: np.ndarray, low: float) -> np.ndarray:
    """Return the steps after 0 and from `low` on."""
    return steps[(steps > 0) & (steps >= low)]


def _mean_score(curves: ScoreCurves, rows: Sequence[int], steps: np.ndarray) -> np.ndarray:
    """Return the mean score of runs in points, `(num_rows,)`."""
    return POINTS * curves.values(rows, steps, RULES["linear"], normalized=True).mean(axis=1)


class _Published:
    """Published scores of the claims of a study that compare with them."""

    def __init__(self, study: Study) -> None:
        self._study = study
        compared = {
            (claim.base_method, task)
            for claim in study.claims
            if claim.base == PUBLISHED
            for task in study.tasks_of(claim)
        }
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._grids: dict[tuple[str, str], np.ndarray] = {}
        self._windows: dict[str, tuple[float, float]] = {}
        if not compared:
            return
        tasks = {task for _, task in compared}
        records = load_curves(released_curves(), PUBLISHED_SOURCE, tasks=tasks)
        self._curves = ScoreCurves(records.select(obs="state"))
        groups = self._curves.runs.groupby(["method", "task"]).indices
        for method, task in sorted(compared):
            rows = self._rows[method, task] = np.asarray(groups[method, task])
            steps = self._grids[method, task] = self._curves.common_grid(rows)
            low, high = self.window(task)
            low = max(low, float(steps[steps > 0][0]))
            self._windows[task] = low, min(high, float(self._curves.last_steps[rows].min()))

    def window(self, task: str) -> tuple[float, float]:
        """Return the first step after 0 and the last one at which all published seeds have scores.

        0 and infinity if the task is not compared with published scores.
        """
        return self._windows.get(task, (0.0, np.inf))

    def shared(self, method: str, task: str, steps: np.ndarray) -> np.ndarray:
        """Return those of a run's steps that are published, or all if none is.

        Args:
            method: name of the method.
            task: name of the task.
            steps: steps of the run's evaluations.
        """
        both = np.intersect1d(steps, self._grids.get((method, task), []))
        return both if len(both) else steps

    def add(self, points: dict[Key, np.ndarray], method: str, task: str, steps: np.ndarray) -> None:
        """Add the published scores of a method and task at the given steps, unless they are there.

        Args:
            points: points of `Scores`.
            method: name of the method.
            task: name of the task.
            steps: steps of the evaluations that a score averages.
        """
        rows = self._rows.get((method, task))
        if rows is not None and (method, PUBLISHED, task) not in points:
            points[method, PUBLISHED, task] = _mean_score(self._curves, rows.tolist(), steps)

    def add_rest(self, points: dict[Key, np.ndarray]) -> None:
        """Add the published scores that are not there at the last published steps.

        Args:
            points: points of `Scores`.
        """
        for (method, task), rows in self._rows.items():
            low, high = self.window(task)
            steps = self._curves.common_grid(rows, min(self._study.tasks[task], high))
            self.add(points, method, task, _counted(steps, low)[-self._study.evaluations :])
