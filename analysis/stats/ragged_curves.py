"""Room of the score curves: one per run, and the rules that make ragged ones comparable.

Runs stop early, miss evaluations or hold the same step twice. A rule says what a run's score at
a given step is then; no other place decides that, and `analysis/stats/audit.py` lists where it
mattered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Literal

import numpy as np
import pandas as pd

from analysis.records.load import RUN_KEY, Records
from analysis.records.run_reader import SCORES
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, TASKS

ENDED = ("COMPLETED", "DIVERGED")
"""States of a run that will not go on, so its last score may stand for later steps."""


@dataclass(frozen=True)
class Rule:
    """What a run's score at a step is where the record does not say it plainly.

    Attributes:
        name: as chosen with `rule=`.
        repeats: which value counts of a step that stands more than once.
        between: what counts between, before and after recorded steps; "none" leaves a hole.
        what: the rule in words.
    """

    name: str
    repeats: Literal["mean", "first", "last"]
    between: Literal["hold", "linear", "none"]
    what: str

    def resolved(self, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps ascending, each once, and their values.

        Args:
            steps: `(num_points,)`, in the order of the file.
            values: `(num_points,)`.
        """
        unique, first, inverse, counts = np.unique(
            steps, return_index=True, return_inverse=True, return_counts=True
        )
        if len(unique) == len(steps) or self.repeats == "first":
            return unique, values[first]
        if self.repeats == "last":
            last = np.zeros(len(unique), int)
            last[inverse] = np.arange(len(steps))  # of equal indices the last assignment stays
            return unique, values[last]
        return unique, np.bincount(inverse, values) / counts

    def at(self, curve: Curve, wanted: np.ndarray) -> np.ndarray:
        """The run's values at `wanted`, NaN where the rule gives none.

        Args:
            curve: of one run.
            wanted: `(num_steps,)` env steps.
        """
        steps, values = self.resolved(curve.steps, curve.values)
        last = np.searchsorted(steps, wanted, side="right") - 1
        recorded = (last >= 0) & (steps[last] == wanted)
        if self.between == "none":
            return np.where(recorded, values[last], np.nan)
        if self.between == "hold":
            found = values[np.maximum(last, 0)]
        else:
            found = np.interp(wanted, steps, values)
        return np.where(wanted <= max(curve.carried_to, steps[-1]), found, np.nan)


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "hold",
            "mean",
            "hold",
            "Repeated steps are averaged; a missing step takes the last value before it (the "
            "first after it at the start), and an ended run keeps its last value.",
        ),
        Rule(
            "hold_first",
            "first",
            "hold",
            "As hold, but of a repeated step the first value counts.",
        ),
        Rule(
            "hold_last",
            "last",
            "hold",
            "As hold, but of a repeated step the last value counts.",
        ),
        Rule(
            "linear",
            "mean",
            "linear",
            "Repeated steps are averaged; a missing step is interpolated between its neighbors, "
            "and an ended run keeps its last value.",
        ),
        Rule(
            "available",
            "mean",
            "none",
            "Repeated steps are averaged; a step counts the seeds that recorded it, and nothing "
            "is filled in.",
        ),
    )
}
DEFAULT_RULE = "hold"


def usage_of_rules() -> str:
    """The option `rule=`, for `--help`."""
    return f"""\
  rule=NAME      what stands in for evaluations that are missing or repeated (default
                 {DEFAULT_RULE}): {", ".join(RULES)}"""


def get_rule(name: str) -> Rule:
    """The rule of that name; UserError where there is none."""
    if name not in RULES:
        raise UserError(f"unknown rule '{name}'{did_you_mean(name, RULES)}")
    return RULES[name]


@dataclass(frozen=True)
class Curve:
    """The scores of one run.

    Attributes:
        steps: `(num_points,)` env steps in the order of the file, repeats included.
        values: `(num_points,)`, in units of the task's metric.
        carried_to: last env step for which the run's last value may stand.
    """

    steps: np.ndarray
    values: np.ndarray
    carried_to: float


class ScoreCurves:
    """The curve of every run that has one, of the metric its task is scored by.

    Args:
        records: whose runs are taken.

    Attributes:
        runs: the rows of `records.runs` with a curve, in order, indexed from 0, with `metric` and
            `scale` (the factor that brings a value to [0, 1]).
        curves: one for each of them.
    """

    def __init__(self, records: Records) -> None:
        runs = records.runs.copy()
        runs["metric"] = runs["score"].map({name: score.metric for name, score in SCORES.items()})
        runs["scale"] = runs["score"].map({name: score.scale for name, score in SCORES.items()})
        runs["run"] = np.arange(len(runs))
        points = records.table.merge(runs[[*RUN_KEY, "metric", "run"]], on=[*RUN_KEY, "metric"])
        points = points.sort_values("run", kind="stable")
        found, starts = np.unique(points["run"].to_numpy(), return_index=True)
        self.runs: pd.DataFrame = runs.take(found).drop(columns="run").reset_index(drop=True)
        steps = np.split(points["step"].to_numpy(), starts[1:])
        values = np.split(points["value"].to_numpy(), starts[1:])
        self.curves = [
            Curve(s, v, _carried_to(run.state, run.budget, paper_budget(run.task, run.obs)))
            for s, v, run in zip(steps, values, self.runs.itertuples(), strict=False)
        ]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.curves)

    @cached_property
    def last_steps(self) -> np.ndarray:
        """`(num_runs,)`: the last env step each run recorded."""
        return np.array([curve.steps.max() for curve in self.curves])

    def grid(self, rows: Sequence[int] | np.ndarray, until: float = np.inf) -> np.ndarray:
        """Every env step that any of these runs recorded, ascending, none beyond `until`."""
        steps = np.unique(np.concatenate([self.curves[row].steps for row in rows]))
        return steps[steps <= until]

    def common_grid(self, rows: Sequence[int] | np.ndarray, until: float = np.inf) -> np.ndarray:
        """The env steps at which many of these runs were evaluated, ascending.

        Args:
            rows: of `runs`.
            until: largest step.

        Returns:
            those that a quarter of the runs recorded, among the runs that got so far: a few runs
            with a finer grid would have all others held between theirs.
        """
        own = [np.unique(self.curves[row].steps) for row in rows]
        steps, counts = np.unique(np.concatenate(own), return_counts=True)
        last = np.sort([grid[-1] for grid in own])
        going = len(own) - np.searchsorted(last, steps)
        return steps[(4 * counts >= going) & (steps <= until)]

    def values(
        self,
        rows: Sequence[int] | np.ndarray,
        steps: np.ndarray,
        rule: Rule,
        *,
        normalized: bool = False,
    ) -> np.ndarray:
        """`(num_rows, num_steps)`: the runs' values, NaN where the rule gives none.

        Args:
            rows: of `runs`.
            steps: env steps, `(num_steps,)`, or `(num_rows, num_steps)` where each row has its
                own.
            rule: what counts where a step was not recorded.
            normalized: whether to scale to [0, 1].
        """
        wanted = np.broadcast_to(steps, (len(rows), np.shape(steps)[-1]))
        found = [rule.at(self.curves[row], own) for row, own in zip(rows, wanted, strict=True)]
        values = np.array(found).reshape(wanted.shape)
        return values * self.runs["scale"].to_numpy()[rows, None] if normalized else values


def paper_budget(task: object, obs: object) -> float:
    """Env steps that the paper trains for; infinity for a task that is not in the table."""
    if obs == "rgb":
        return PIXEL_ENV_STEPS
    return TASKS[str(task)].env_steps if task in TASKS else np.inf


def budget_of(budget: object) -> float:
    """A run's budget; infinity where its record states none."""
    steps = float(budget) if isinstance(budget, Real) else np.nan
    return np.inf if np.isnan(steps) else steps


def _carried_to(state: object, budget: object, full: float) -> float:
    """Until when a run's last value may stand: for good once it has had the task's full budget."""
    steps = budget_of(budget)
    if state not in ENDED or np.isinf(steps):
        return -np.inf
    return np.inf if steps >= full else steps
