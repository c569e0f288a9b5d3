"""Room of the effects: what changing a setting does to the score, task by task and on average.

Both sides have a few seeds a task. The mean over tasks of the differences has two intervals: the
stratified bootstrap's, which figures show, and Welch's, which verdicts rest on: of three seeds the
bootstrap covers too little (see `analysis/stats/equivalence.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.stats.bootstrap import Bootstrap, Interval, probability_of_improvement
from analysis.stats.bootstrap import difference as bootstrap_difference
from analysis.stats.equivalence import Difference, difference, mean_difference
from analysis.stats.ragged_curves import ENDED, Rule, ScoreCurves, budget_of
from analysis.stats.selection import joined

POINTS = 100.0
"""Scores in [0, 1] times this are points: return / 10, success in per cent."""


@dataclass(frozen=True)
class Sample:
    """The runs of one series that count, sorted by task.

    Attributes:
        strata: `(num_runs,)`, the task of each as 0, 1, …
        final: `(num_runs,)`, scores in points at the compared step.
        area: `(num_runs,)`, mean score in points until then (area under the curve).
        seeds: all that occur.
    """

    strata: np.ndarray
    final: np.ndarray
    area: np.ndarray
    seeds: tuple[int, ...]

    @property
    def score(self) -> float:
        """Mean over tasks of the means over seeds."""
        numbers = range(int(self.strata[-1]) + 1)
        return float(np.mean([self.of_task(number).mean() for number in numbers]))

    def of_task(self, number: int) -> np.ndarray:
        """Final scores of one task."""
        return self.final[self.strata == number]


@dataclass(frozen=True)
class Effect:
    """A variant against its base, both where they have runs of the same tasks.

    Attributes:
        tasks: those compared.
        steps: env step of each task at which scores are read.
        base: runs of the base.
        variant: runs of the variant.
        final: difference variant − base of the mean final score, with the bootstrap's interval.
        area: likewise of the area under the curve.
        improvement: P(variant > base) on a task chosen at random, in per cent.
        welch: the difference of the final scores with Welch's error.
    """

    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    base: Sample
    variant: Sample
    final: Interval
    area: Interval
    improvement: Interval
    welch: Difference

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Final scores of variant and base, a pair for each task."""
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
    """Compares two series of runs.

    Args:
        curves: of all runs.
        base: rows of one series.
        variant: rows of the other.
        rule: what counts where a step was not recorded.
        bootstrap: how intervals are drawn.
        at: env step at which scores are read; the end of the shorter side's budget if None.

    Returns:
        None where no task has a run that counts on both sides; and what is missing, in words.
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
        end = at or int(min(_end(curves, side) for side in sides))
        there = [_there(curves, side, end, rule, missing) for side in sides]
        missing += _other_seeds(runs, task, *sides)
        if all(map(len, there)):
            ends[task], kept[task] = end, (there[0], there[1])
    if not kept:
        return None, tuple(missing)
    theirs, ours = (
        _sample(curves, {task: rows[side] for task, rows in kept.items()}, ends, rule)
        for side in (0, 1)
    )
    parts = [difference(ours.of_task(n), theirs.of_task(n)) for n in range(len(kept))]
    effect = Effect(
        tasks=tuple(kept),
        steps=tuple(ends[task] for task in kept),
        base=theirs,
        variant=ours,
        final=_difference((ours.final, ours.strata), (theirs.final, theirs.strata), bootstrap),
        area=_difference((ours.area, ours.strata), (theirs.area, theirs.strata), bootstrap),
        improvement=_scaled(
            probability_of_improvement(
                (ours.final, ours.strata), (theirs.final, theirs.strata), bootstrap
            )
        ),
        welch=mean_difference(parts),
    )
    return effect, tuple(missing)


def task_table(effect: Effect) -> pd.DataFrame:
    """A row per task: env step, seeds, means and difference with Welch's 95 % interval."""
    rows = []
    for task, step, (ours, theirs) in zip(effect.tasks, effect.steps, effect.pairs(), strict=True):
        own = difference(ours, theirs)
        low, high = own.interval(0.95)
        means = (theirs.mean(), ours.mean(), own.value, low, high)
        rows.append((task, step, len(theirs), len(ours), *means))
    columns = ["task", "env_step", "num_base", "num_variant", "base", "variant"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high"])


def _by_task(runs: pd.DataFrame, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each task, by seed."""
    chosen = runs.loc[rows].sort_values("seed", kind="stable")
    return {str(task): own.index.to_numpy() for task, own in chosen.groupby("task")}


def _end(curves: ScoreCurves, rows: np.ndarray) -> float:
    """Where the runs of one task end: at their budget, or with their last step without one."""
    budgets = [budget_of(budget) for budget in curves.runs.loc[rows, "budget"]]
    known = [
        last if np.isinf(budget) else budget
        for budget, last in zip(budgets, curves.last_steps[rows], strict=True)
    ]
    return max(known)


def _there(
    curves: ScoreCurves, rows: np.ndarray, end: int, rule: Rule, missing: list[str]
) -> np.ndarray:
    """The rows that have a score at `end`; the others are named."""
    values = curves.values(rows, np.array([end]), rule)[:, 0]
    for row in rows[np.isnan(values)]:
        run = curves.runs.loc[row]
        how = "ended" if run["state"] in ENDED else "stands"
        missing.append(
            f"{run['task']}: seed {run['seed']} of {run['variant']} {how} at "
            f"{int(curves.last_steps[row]):,} of {end:,} env steps"
        )
    return rows[~np.isnan(values)]


def _other_seeds(runs: pd.DataFrame, task: str, base: np.ndarray, variant: np.ndarray) -> list[str]:
    """Seeds that only one side has, in words."""
    theirs, ours = (set(runs.loc[rows, "seed"]) for rows in (base, variant))
    return [
        f"{task}: seed{'s' * (len(lacking) > 1)} {joined(sorted(lacking))} of the {name} only"
        for name, lacking in (("base", theirs - ours), ("variant", ours - theirs))
        if lacking
    ]


def _sample(
    curves: ScoreCurves, rows: Mapping[str, np.ndarray], ends: Mapping[str, int], rule: Rule
) -> Sample:
    """Final scores and areas of the runs of one side."""
    strata, final, area = [], [], []
    for number, (task, own) in enumerate(rows.items()):
        steps = np.append(curves.common_grid(own, ends[task] - 1), ends[task])
        values = POINTS * curves.values(own, steps, rule, normalized=True)
        strata.append(np.full(len(own), number))
        final.append(values[:, -1])
        area.append(_area(steps, values))
    seeds = curves.runs.loc[np.concatenate(list(rows.values())), "seed"]
    joined = [np.concatenate(parts) for parts in (strata, final, area)]
    return Sample(joined[0], joined[1], joined[2], tuple(sorted(seeds.unique())))


def _area(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Area under each curve over its length, by trapezia between steps that have a value."""
    out = np.empty(len(values))
    for i, curve in enumerate(values):
        there = ~np.isnan(curve)
        x, y = steps[there], curve[there]
        heights = (y[1:] + y[:-1]) / 2
        out[i] = np.sum(heights * np.diff(x)) / (x[-1] - x[0]) if len(x) > 1 else y[-1]
    return out


def _difference(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], bootstrap: Bootstrap
) -> Interval:
    """Mean over tasks of the first side minus that of the second."""
    (scores, strata), (others, their_strata) = ours, theirs
    return bootstrap_difference(
        "mean", (scores[:, None], strata), (others[:, None], their_strata), bootstrap
    )


def _scaled(interval: Interval) -> Interval:
    """In per cent."""
    return Interval(*(POINTS * bound for bound in (interval.point, interval.low, interval.high)))
