"""Effect of a setting on the score, per task and averaged over tasks.

Both sides have only a few seeds per task, so differences have Welch's t-intervals, and the
probability of improvement that of `t_intervals.py`. Their coverage is measured by simulation on the
compared runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import Pools, coverage_of_pair, pools_of
from analysis.stats.equivalence import Difference, difference, if_spread, mean_difference
from analysis.stats.horizons import common_budget, without_score
from analysis.stats.intervals import Interval, has_width
from analysis.stats.ragged_curves import ENDED, ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import joined
from analysis.stats.t_intervals import improvement_interval

POINTS = 100.0
"""Factor from scores in [0, 1] to points: return / 10, success in percent."""


@dataclass(frozen=True)
class Sample:
    """Scores of the compared runs of one series, sorted by task.

    Attributes:
        strata: task of each run as 0, 1, …, `(num_runs,)`.
        final: scores in points at the compared step, `(num_runs,)`.
        area: mean scores in points up to that step (area under the curve), `(num_runs,)`.
        pools: last scores of each task, from 0 to 1, see `coverage.pools_of`.
    """

    strata: np.ndarray
    final: np.ndarray
    area: np.ndarray
    pools: Pools

    @property
    def sizes(self) -> tuple[int, ...]:
        """Runs of each task."""
        return tuple(map(int, np.bincount(self.strata)))

    @property
    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Final scores `(num_runs, 1)` and strata."""
        return self.final[:, None], self.strata

    @property
    def score(self) -> float:
        """Mean over tasks of the mean final score over seeds."""
        numbers = range(int(self.strata[-1]) + 1)
        return float(np.mean([self.of_task(number).mean() for number in numbers]))

    def of_task(self, number: int) -> np.ndarray:
        """Return the final scores of one task."""
        return self.final[self.strata == number]


@dataclass(frozen=True)
class Effect:
    """Comparison of a variant with its base on the tasks that both have.

    Attributes:
        tasks: the compared tasks.
        steps: env step of each task at which scores are read.
        base: runs of the base.
        variant: runs of the variant.
        final: difference variant − base of the mean final scores, with Welch's standard error;
            NaN if a side has a single seed or no score varies.
        area: the same for the mean areas under the curve.
        improvement: P(variant > base) on a random task, in percent.
        coverage: measured coverage of the 95 % intervals of `final` and `improvement` by name; NaN
            without an interval.
    """

    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    base: Sample
    variant: Sample
    final: Difference
    area: Difference
    improvement: Interval
    coverage: Mapping[str, float]

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the final scores of variant and base for each task."""
        numbers = range(len(self.tasks))
        return [(self.variant.of_task(n), self.base.of_task(n)) for n in numbers]


def effect_of(
    curves: ScoreCurves,
    base: np.ndarray,
    variant: np.ndarray,
    rule: Rule,
    bootstrap: Bootstrap,
    *,
    at: int | None = None,
) -> tuple[Effect | None, tuple[str, ...]]:
    """Compare two series of runs.

    Args:
        curves: all runs.
        base: row numbers of the base.
        variant: row numbers of the variant.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.
        at: env step at which scores are read; None for the smaller of the two sides' budgets.

    Returns:
        The effect, None if no task has a usable run on both sides; and messages about missing runs.
    """
    runs = curves.runs
    missing: list[str] = []
    ends: dict[str, int] = {}
    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    by_task = [_by_task(runs, rows) for rows in (base, variant)]
    for task in sorted({*by_task[0], *by_task[1]}):
        sides = [tasks.get(task, np.array([], int)) for tasks in by_task]
        if not all(map(len, sides)):
            missing.append(f"{task}: no run of the {'base' if len(sides[1]) else 'variant'}")
            continue
        if reason := without_score(runs.loc[np.concatenate(sides)]):
            missing.append(f"{task}: {reason}")
            continue
        end = at or common_budget(curves, sides)
        usable = [_with_score(curves, side, end, rule, missing) for side in sides]
        missing += _other_seeds(runs, task, *sides)
        if all(map(len, usable)):
            ends[task], kept[task] = end, (usable[0], usable[1])
    if not kept:
        return None, tuple(missing)
    theirs, ours = (
        _sample(curves, {task: rows[side] for task, rows in kept.items()}, ends, rule)
        for side in (0, 1)
    )
    final = _difference(ours, theirs, "final")
    improvement = _scaled(improvement_interval(ours.runs, theirs.runs))
    measured = {
        "difference": np.isfinite(final.error),
        "improvement": has_width(improvement.low[0], improvement.high[0]),
    }
    effect = Effect(
        tasks=tuple(kept),
        steps=tuple(ends[task] for task in kept),
        base=theirs,
        variant=ours,
        final=final,
        area=_difference(ours, theirs, "area"),
        improvement=improvement,
        coverage={
            name: coverage_of_pair(
                name, (ours.pools, theirs.pools), (ours.sizes, theirs.sizes), bootstrap
            )
            if exists
            else float("nan")
            for name, exists in measured.items()
        },
    )
    return effect, tuple(missing)


def task_table(effect: Effect) -> pd.DataFrame:
    """Return env step, seeds, means and difference with Welch's 95 % interval per task."""
    rows = []
    for task, step, (ours, theirs) in zip(effect.tasks, effect.steps, effect.pairs(), strict=True):
        own = difference(ours, theirs)
        low, high = if_spread(own).interval(0.95)
        means = (theirs.mean(), ours.mean(), own.value, low, high)
        rows.append((task, step, len(theirs), len(ours), *means))
    columns = ["task", "env_step", "num_base", "num_variant", "base", "variant"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high"])


def _by_task(runs: pd.DataFrame, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the row numbers of each task, sorted by seed."""
    chosen = runs.loc[rows].sort_values("seed", kind="stable")
    return {str(task): own.index.to_numpy() for task, own in chosen.groupby("task")}


def _with_score(
    curves: ScoreCurves, rows: np.ndarray, end: int, rule: Rule, missing: list[str]
) -> np.ndarray:
    """Return the rows that have a score at `end`; append a message for each of the others.

    Step 0 never counts, not even as the last score of a seed that diverged.
    """
    values = curves.values(rows, np.array([end]), rule)[:, 0]
    absent = np.isnan(values) | (curves.last_steps[rows] <= 0)
    for row in rows[absent]:
        run = curves.runs.loc[row]
        how = "ended" if run["state"] in ENDED else "is"
        missing.append(
            f"{run['task']}: seed {run['seed']} of {run['variant']} {how} at "
            f"{int(curves.last_steps[row]):,} of {end:,} env steps"
        )
    return rows[~absent]


def _other_seeds(runs: pd.DataFrame, task: str, base: np.ndarray, variant: np.ndarray) -> list[str]:
    """Return messages about seeds that only one side has."""
    theirs, ours = (set(runs.loc[rows, "seed"]) for rows in (base, variant))
    return [
        f"{task}: seed{'s' * (len(unmatched) > 1)} {joined(sorted(unmatched))} only in the {name}"
        for name, unmatched in (("base", theirs - ours), ("variant", ours - theirs))
        if unmatched
    ]


def _sample(
    curves: ScoreCurves, rows: Mapping[str, np.ndarray], ends: Mapping[str, int], rule: Rule
) -> Sample:
    """Return final scores and areas under the curve of the runs of one side."""
    strata, final, area = [], [], []
    pools: list[tuple[float, ...]] = []
    for number, (task, own) in enumerate(rows.items()):
        steps = np.append(curves.common_grid(own, ends[task] - 1), ends[task])
        values = POINTS * curves.values(own, steps, rule, normalized=True)
        strata.append(np.full(len(own), number))
        final.append(values[:, -1])
        area.append(_area(steps, values))
        pools += pools_of(curves, own, np.zeros(len(own), int), np.full(len(own), ends[task]))
    columns = [np.concatenate(parts) for parts in (strata, final, area)]
    return Sample(columns[0], columns[1], columns[2], tuple(pools))


def _area(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the area under each curve divided by its length (trapezoidal rule, NaN skipped)."""
    out = np.empty(len(values))
    for i, curve in enumerate(values):
        present = ~np.isnan(curve)
        x, y = steps[present], curve[present]
        heights = (y[1:] + y[:-1]) / 2
        out[i] = np.sum(heights * np.diff(x)) / (x[-1] - x[0]) if len(x) > 1 else y[-1]
    return out


def _difference(ours: Sample, theirs: Sample, name: Literal["final", "area"]) -> Difference:
    """Return the difference of the means over tasks of the two sides."""
    scores, others = getattr(ours, name), getattr(theirs, name)
    tasks = range(len(ours.sizes))
    return if_spread(
        mean_difference(
            [difference(scores[ours.strata == n], others[theirs.strata == n]) for n in tasks]
        )
    )


def _scaled(interval: Interval) -> Interval:
    """Return the interval in percent."""
    return Interval(*(POINTS * bound for bound in (interval.point, interval.low, interval.high)))
