"""Score curves of runs, and the rules that make incomplete curves comparable.

Runs may stop early, lack evaluations or contain the same step twice. Only rules define the score of
a run at a given step in these cases; `analysis/stats/audit.py` lists where a rule had an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.evaluations import ENV_STEPS, StepUnit, score_of
from analysis.records.load import RUN_KEY, Records
from analysis.stats.rules import Rule, is_near
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, TASKS

COMPLETED = "COMPLETED"
ENDED = (COMPLETED, "DIVERGED", "ENDED")
"""States of a run that will not continue, so that its last score may represent later steps."""


@dataclass(frozen=True)
class Curve:
    """The scores of one run.

    Attributes:
        steps: steps in the order of the file, repetitions included, `(num_points,)`.
        values: scores in units of the task's metric, `(num_points,)`.
        carried_to: last step that the run's last value may represent.
    """

    steps: np.ndarray
    values: np.ndarray
    carried_to: float


class ScoreCurves:
    """Score curves of all runs that have evaluations, in the published metric of their task.

    All curves have steps of one unit, so that nothing compares env steps with updates.

    Args:
        records: records of the runs.
        step_unit: unit of the steps; runs with steps of the other unit are excluded.

    Attributes:
        step_unit: unit of the steps.
        runs: the rows of `records.runs` with a curve, in order, indexed from 0, with the additional
            columns `metric`, `scale` and `offset`, see `Score`.
        curves: the curve of each of these rows.
    """

    def __init__(self, records: Records, step_unit: StepUnit = ENV_STEPS) -> None:
        self.step_unit = step_unit
        runs = records.runs[records.runs["step_unit"] == step_unit].copy()
        scores = {name: score_of(name) for name in runs["score"].unique()}
        for column, kind in (("metric", object), ("scale", float), ("offset", float)):
            found = {name: getattr(score, column) for name, score in scores.items()}
            runs[column] = runs["score"].map(found).astype(kind)
        runs["run"] = np.arange(len(runs))
        points = records.table.merge(runs[[*RUN_KEY, "metric", "run"]], on=[*RUN_KEY, "metric"])
        points = points.sort_values("run", kind="stable")
        kept, starts = np.unique(points["run"].to_numpy(), return_index=True)
        self.runs: pd.DataFrame = runs.take(kept).drop(columns="run").reset_index(drop=True)
        steps = np.split(points["step"].to_numpy(), starts[1:])
        values = np.split(points["value"].to_numpy(), starts[1:])
        self.curves = [
            Curve(s, v, _carried_to(run, s.max(), self._full_budget(run)))
            for s, v, run in zip(steps, values, self.runs.itertuples(), strict=False)
        ]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.curves)

    @cached_property
    def last_steps(self) -> np.ndarray:
        """Last step that each run recorded, `(num_runs,)`."""
        return np.array([curve.steps.max() for curve in self.curves])

    @cached_property
    def reached(self) -> np.ndarray:
        """Last step at which each run has a value, `(num_runs,)`."""
        return np.maximum(self.last_steps, [curve.carried_to for curve in self.curves])

    def grid(self, rows: Sequence[int] | np.ndarray, until: float = np.inf) -> np.ndarray:
        """Return every step up to `until` that any of these runs recorded, ascending."""
        steps = np.unique(np.concatenate([self.curves[row].steps for row in rows]))
        return steps[steps <= until]

    def common_grid(self, rows: Sequence[int] | np.ndarray, until: float = np.inf) -> np.ndarray:
        """Return the steps at which many of these runs were evaluated, ascending.

        Args:
            rows: row numbers in `runs`.
            until: largest step.

        Returns:
            Steps that were recorded by at least a quarter of the runs that reached them. Otherwise,
            a few runs with a finer grid would determine the steps of all others.
        """
        grids = [np.unique(self.curves[row].steps) for row in rows]
        steps, counts = np.unique(np.concatenate(grids), return_counts=True)
        last = np.sort([grid[-1] for grid in grids])
        still_running = len(grids) - np.searchsorted(last, steps)
        return steps[(4 * counts >= still_running) & (steps <= until)]

    def values(
        self,
        rows: Sequence[int] | np.ndarray,
        steps: np.ndarray,
        rule: Rule,
        *,
        normalized: bool = False,
    ) -> np.ndarray:
        """Return the runs' values, `(num_rows, num_steps)`, NaN if the rule gives none.

        Args:
            rows: row numbers in `runs`.
            steps: steps, `(num_steps,)` for all rows or `(num_rows, num_steps)`.
            rule: treatment of missing and repeated evaluations.
            normalized: whether to scale the values to [0, 1].
        """
        wanted = np.broadcast_to(steps, (len(rows), np.shape(steps)[-1]))
        row_values = [rule.at(self.curves[row], own) for row, own in zip(rows, wanted, strict=True)]
        values = np.array(row_values).reshape(wanted.shape)
        if not normalized:
            return values
        scale, offset = (self.runs[name].to_numpy()[rows, None] for name in ("scale", "offset"))
        return (values - offset) * scale

    def _full_budget(self, run: Any) -> float:
        """Return the paper's budget of a run, after which its last value represents all steps."""
        return paper_budget(run.task, run.obs) if self.step_unit == ENV_STEPS else np.inf


FEW_SHOT_ENV_STEPS = 20_000
FEW_SHOT_VARIANTS = ("finetuned", "scratch")
"""Env steps and variants of the paper's few-shot finetuning, see `figures.toml`."""


def paper_budget(task: object, obs: object) -> float:
    """Return the env steps that the paper trains for; infinity for an unknown task."""
    if obs == "rgb":
        return PIXEL_ENV_STEPS
    return TASKS[str(task)].env_steps if task in TASKS else np.inf


def variant_budget(task: object, obs: object, variant: object) -> float:
    """Return the env steps that the paper trains a variant for; infinity for an unknown task.

    Args:
        task: name of the task.
        obs: observation type.
        variant: name of the variant, with or without marks in brackets; those of few-shot
            finetuning have a budget of their own.
    """
    full = paper_budget(task, obs)
    few_shot = str(variant).split("[")[0] in FEW_SHOT_VARIANTS
    return min(full, FEW_SHOT_ENV_STEPS) if few_shot else full


def budget_of(budget: object) -> float:
    """Return a run's budget; infinity if it was not recorded."""
    steps = float(budget) if isinstance(budget, Real) else np.nan
    return np.inf if np.isnan(steps) else steps


def _carried_to(run: Any, last: int, full: float) -> float:
    """Return the last step that a run's last value may represent.

    That is the budget of an ended run, and infinity if the run completed the task's full budget. If
    the record of a completed run lacks the evaluation at its end, it is -infinity: an earlier value
    says nothing about later steps.

    Args:
        run: row of `ScoreCurves.runs`.
        last: last step that the run recorded.
        full: the paper's budget.
    """
    steps = budget_of(run.budget)
    if run.state not in ENDED or np.isinf(steps):
        return -np.inf
    if run.state == COMPLETED and not is_near(last, min(steps, full)):
        return -np.inf
    return np.inf if steps >= full else steps
