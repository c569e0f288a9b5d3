"""Horizons of comparisons: at which steps sides are compared, and which seeds take part.

This is the one place that decides it, for figures, the report, verdicts, ablations and variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.records.load import SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.ragged_curves import ScoreCurves, budget_of
from analysis.stats.rules import is_near
from tdmpc2.envs.tasks import TASKS

OWN, OWN_LABEL = "own_environments", "Own environments"
"""Name and label of the group of users' environments."""


@dataclass(frozen=True)
class Group:
    """Tasks whose scores are averaged.

    Attributes:
        name: name of the group.
        label: title in figures.
        tasks: task names.
        horizon: env steps at which scores are read, or the task's budget if that is less; None for
            the budget of each task.
    """

    name: str
    label: str
    tasks: tuple[str, ...]
    horizon: int | None = None

    def steps(self, task: str) -> int:
        """Return the env steps at which the task's score is read."""
        if self.horizon is not None and task not in TASKS:
            return self.horizon
        budget = TASKS[task].env_steps
        return budget if self.horizon is None else min(budget, self.horizon)


def task_group(task: str, label: str) -> Group:
    """Return the group of one task, read at its budget; one of a user's environment at the end.

    Args:
        task: name of the task, which is the name of the group.
        label: title in figures.
    """
    return Group(task, label, (task,), None if task in TASKS else _END)


_END = 10**18
"""Env steps after the last one of any run."""


@dataclass(frozen=True)
class Side:
    """The seeds of one side of a comparison on one task.

    Attributes:
        rows: row numbers of the seeds that take part.
        last: last step at which all of them have a value.
        left_out: a message for each of the other seeds.
    """

    rows: np.ndarray
    last: float
    left_out: tuple[str, ...]


def last_before(steps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the last evaluated step at or before each wanted step, `(num_wanted,)`.

    The result is -1 if there is none.
    """
    ordered = np.sort(steps)
    place = np.searchsorted(ordered, wanted, side="right") - 1
    return np.where(place >= 0, ordered[np.maximum(place, 0)], -1)


def side_of(curves: ScoreCurves, rows: np.ndarray, until: float, since: float = 0) -> Side:
    """Return the seeds of a task that take part in a comparison, and how far they all reach.

    A seed that has not come near the step that most seeds reached (`rules.is_near`) is left out, so
    that one unfinished seed does not determine the step of all others. So are seeds before the
    first step that counts, if another seed has reached it. Step 0 never counts, not even as the
    last score of a seed that diverged.

    Args:
        curves: all runs.
        rows: row numbers of the seeds.
        until: last step that counts, such as the last one of the other side.
        since: first step that counts.
    """
    begun = curves.last_steps[rows] > 0
    reached = np.where(begun, np.minimum(curves.reached[rows], until), 0)
    able = begun & (reached >= since)
    able |= not able.any()
    kept = able & is_near(reached, np.sort(reached[able])[(able.sum() - 1) // 2])
    left_out = tuple(position(curves, row) for row in rows[~kept])
    return Side(rows[kept], float(reached[kept].min()), left_out)


def position(curves: ScoreCurves, row: int) -> str:
    """Return how far a run has come, such as `seed 3 is at 100,000 env steps`."""
    run = curves.runs.loc[row]
    verb = {"DIVERGED": "diverged", "ENDED": "ended"}.get(str(run["state"]), "is")
    return f"seed {run['seed']} {verb} at {int(curves.last_steps[row]):,} env steps"


def common_budget(curves: ScoreCurves, sides: Sequence[np.ndarray]) -> int:
    """Return the smaller of the sides' largest budgets; a run without one counts its last step.

    Args:
        curves: all runs.
        sides: row numbers of the runs of each side, of one task.
    """
    budgets = curves.runs["budget"].map(budget_of).to_numpy(float)
    known = np.where(np.isinf(budgets), curves.last_steps, budgets)
    return int(min(known[rows].max() for rows in sides))


def without_score(runs: pd.DataFrame) -> str:
    """Return why these runs of one task have no normalized scores in common; empty if they have.

    Args:
        runs: rows of `ScoreCurves.runs`.
    """
    if runs["scale"].isna().any():
        return "returns without score_range"
    same = len(runs[["metric", "scale", "offset"]].drop_duplicates()) == 1
    return "" if same else f"scores of several kinds ({', '.join(sorted(runs['score'].unique()))})"


def own_environments(curves: ScoreCurves) -> tuple[Group | None, tuple[str, ...]]:
    """Return the group of the environments of users, and those that cannot be averaged.

    These are tasks of our runs that are not in the task table. A task has a normalized score if all
    its runs have the same one: a success rate, or returns with the same `score_range`. Scores are
    read at the smallest budget; a run without one counts its last step.

    Args:
        curves: runs with the same observation type.
    """
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    by_task = runs[~runs["task"].isin(list(TASKS))].groupby("task")
    scored = by_task["scale"].count() == by_task.size()
    scored &= by_task["score"].nunique() == 1
    tasks, others = (tuple(map(str, scored.index[keep])) for keep in (scored, ~scored))
    if not tasks:
        return None, others
    budgets = runs["budget"].map(budget_of).to_numpy(float)
    known = np.where(np.isfinite(budgets), budgets, curves.last_steps[runs.index])
    horizon = min(known[runs["task"] == task].max() for task in tasks)
    return Group(OWN, OWN_LABEL, tasks, int(horizon)), others


def own_groups(curves: ScoreCurves, groups: dict[str, Group]) -> list[Group]:
    """Return a group for the tasks run here, for each of their domains and horizons.

    Groups that are equal to one of the given groups are left out, and so are tasks without a
    normalized score.

    Args:
        curves: runs with the same observation type.
        groups: groups by name, of which those of domains provide labels.
    """
    found = []
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    runs = runs[~runs["task"].isin(own_environments(curves)[1])]
    for domain, own in runs.groupby("domain"):
        tasks = tuple(sorted(own["task"].unique()))
        label = groups[str(domain)].label if domain in groups else str(domain)
        for horizon in own_horizons(curves, tasks):
            ours = Group(f"ours_{domain}_{horizon}", f"{label}, tasks run here", tasks, horizon)
            steps = [ours.steps(task) for task in tasks]
            if all(
                set(tasks) != set(group.tasks) or steps != [group.steps(task) for task in tasks]
                for group in groups.values()
            ):
                found.append(ours)
    return found


def own_horizons(curves: ScoreCurves, tasks: Sequence[str]) -> list[int]:
    """Return the env steps at which our runs can be compared with each other and other sources.

    The first is the shortest budget that one of our methods has completed, or the last step of the
    other sources before it. If all other sources start after it, their first step is added if one
    of our methods reached it. Scores are never compared at a step before the first evaluation.

    Args:
        curves: runs with the same observation type.
        tasks: tasks of our runs.

    Returns:
        At most two steps, ascending.
    """
    ours, theirs = [], set()
    runs_of_tasks = curves.runs[curves.runs["task"].isin(tasks)]
    for series, own in runs_of_tasks.groupby(SERIES):
        if set(own["task"]) != set(tasks):
            continue
        grids = [curves.grid(rows.index.to_numpy()) for _, rows in own.groupby("task")]
        if series[0] == RUNS_SOURCE:
            ours.append((min(int(grid[-1]) for grid in grids), own["budget"].min()))
        else:
            theirs |= set.intersection(
                *({int(step) for step in grid if step > 0} for grid in grids)
            )
    finished = [last for last, budget in ours if is_near(last, budget)]
    lasts = [last for last, _ in ours if last > 0]
    if not lasts:
        return []
    horizon = min(finished, default=max(lasts))
    earlier = [step for step in theirs if step <= horizon]
    if earlier:
        return [max(earlier)]
    later = [step for step in theirs if step <= max(lasts)]
    return [horizon, *([min(later)] if later else [])]
