"""Leaderboard: methods of several sources on the tasks and at the steps that all of them have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.records.field_results import MEAN, Series
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Interval
from analysis.stats.t_intervals import improvement_interval, t_interval
from tdmpc2.envs.tasks import TASKS

LEAST_TASKS = 3
"""Least number of common tasks of a table."""
LEAST_SEEDS = 2
"""Least number of seeds with an evaluation at a step, of a method with several seeds."""
SHARE_OF_TASKS = 0.8
"""Least share of the common tasks that have an evaluation at the step that is chosen."""
REFERENCE = "tdmpc2"
"""Method against which the probability of improvement is computed, if it is there."""
COLUMNS = (
    *("method", "source", "tasks", "tasks_of_group", "seeds", "mean", "mean_low", "mean_high"),
    *("iqm", "iqm_low", "iqm_high", "improvement", "improvement_low", "improvement_high"),
)


@dataclass(frozen=True)
class Method:
    """A method of a source, and its series by task."""

    source: str
    name: str
    tasks: Mapping[str, Sequence[Series]]

    @property
    def label(self) -> str:
        """Method and source."""
        return f"{self.name} ({self.source})"

    @property
    def has_seeds(self) -> bool:
        """Whether its curves are those of single seeds."""
        return all(one.seed is not MEAN for series in self.tasks.values() for one in series)


@dataclass(frozen=True)
class Leaderboard:
    """Comparison of methods on common tasks at a common step.

    Attributes:
        group: name of the group of tasks.
        tasks: the common tasks.
        group_size: number of tasks in the group.
        step: env steps at which scores are compared.
        table: a row per method with `COLUMNS`, best mean first.
        per_task: mean score of each method on each common task.
        curves: mean score of each method at each common step.
    """

    group: str
    tasks: tuple[str, ...]
    group_size: int
    step: int
    table: pd.DataFrame
    per_task: pd.DataFrame
    curves: pd.DataFrame


def methods_of(series: Iterable[Series]) -> list[Method]:
    """Return the methods, in the order of the series."""
    found: dict[tuple[str, str], dict[str, list[Series]]] = {}
    for one in series:
        found.setdefault((one.source, one.method), {}).setdefault(one.task, []).append(one)
    return [Method(source, name, tasks) for (source, name), tasks in found.items()]


def leaderboard(
    group: str,
    tasks: Sequence[str],
    methods: Sequence[Method],
    problems: list[Problem],
    step: int | None = None,
) -> Leaderboard | None:
    """Compare methods on the tasks of a group that all of them have.

    Args:
        group: name of the group.
        tasks: tasks of the group; those that are not in the table of tasks do not count.
        methods: methods to compare; those without a task of the group are left out.
        problems: list to which what is left out is appended.
        step: env steps; None for the largest that `SHARE_OF_TASKS` of the common tasks have.

    Returns:
        The comparison; None if fewer than two methods or `LEAST_TASKS` tasks are left.
    """
    rated = [task for task in tasks if task in TASKS]
    present, shared = _comparable(group, rated, methods, problems)
    if len(present) < 2:
        return None
    grids = {task: _common_steps(present, task) for task in shared}
    chosen = _largest_step(grids) if step is None else step
    tasks_there = [task for task in shared if chosen in grids[task]]
    if len(tasks_there) < LEAST_TASKS:
        what = (
            f"{len(tasks_there)} tasks with an evaluation of all methods after {chosen:,} env steps"
        )
        problems.append(Problem(group, None, what, "warning"))
        return None
    if len(tasks_there) < len(shared):
        absent = ", ".join(task for task in shared if task not in tasks_there)
        what = f"without an evaluation of all methods after {chosen:,} env steps: {absent}"
        problems.append(Problem(group, None, what, "warning"))
    shared, steps = tasks_there, set.intersection(*(grids[task] for task in tasks_there))
    reference = next((method for method in present if method.name == REFERENCE), present[0])
    rows = [_row(method, reference, shared, len(rated), chosen) for method in present]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        "mean", ascending=False, kind="stable", ignore_index=True
    )
    per_task = pd.DataFrame(
        {method.label: _task_means(method, shared, chosen) for method in present}, index=shared
    )
    curves = pd.DataFrame(
        {
            method.label: [_task_means(method, shared, one).mean() for one in sorted(steps)]
            for method in present
        },
        index=pd.Index(sorted(steps), name="env_step"),
    )
    named = per_task.rename_axis("task")
    return Leaderboard(group, tuple(shared), len(rated), chosen, table, named, curves)


def _comparable(
    group: str, tasks: Sequence[str], methods: Sequence[Method], problems: list[Problem]
) -> tuple[list[Method], list[str]]:
    """Return methods and the tasks of a group that all of them have.

    Methods are taken in the order of the number of their tasks. One that would leave fewer than
    `LEAST_TASKS` common tasks is left out and named.

    Args:
        group: name of the group.
        tasks: tasks of the group.
        methods: all methods.
        problems: list to which the methods that are left out are appended.
    """
    taken: list[Method] = []
    shared = list(tasks)
    count = {id(method): len(method.tasks.keys() & set(tasks)) for method in methods}
    for method in sorted(methods, key=lambda method: -count[id(method)]):
        left = [task for task in shared if task in method.tasks]
        if len(left) >= LEAST_TASKS:
            taken, shared = [*taken, method], left
        elif count[id(method)]:
            what = (
                f"{method.label} left out: {count[id(method)]} of {len(tasks)} tasks, {len(left)} "
                "in common with the others; choose methods with methods="
            )
            problems.append(Problem(group, None, what, "warning"))
    return [method for method in methods if method in taken], shared


def _common_steps(methods: Sequence[Method], task: str) -> set[int]:
    """Return the steps after 0 at which every method has enough seeds on a task."""
    grids = []
    for method in methods:
        series = method.tasks[task]
        counts = Counter(step for one in series for step in one.steps.tolist())
        least = min(LEAST_SEEDS, len(series))
        grids.append({step for step, count in counts.items() if count >= least})
    return set.intersection(*grids) - {0}


def _largest_step(grids: Mapping[str, set[int]]) -> int:
    """Return the largest step that `SHARE_OF_TASKS` of the tasks have; 0 if there is none."""
    counts = Counter(step for steps in grids.values() for step in steps)
    least = SHARE_OF_TASKS * len(grids)
    return max((step for step, count in counts.items() if count >= least), default=0)


def _at(method: Method, tasks: Sequence[str], step: int) -> Iterator[np.ndarray]:
    """Yield the scores of the seeds with an evaluation at a step, for each task."""
    for task in tasks:
        found = [one.scores[one.steps == step] for one in method.tasks[task]]
        yield np.concatenate(found)


def _task_means(method: Method, tasks: Sequence[str], step: int) -> np.ndarray:
    return np.array([scores.mean() for scores in _at(method, tasks, step)])


def _flat(method: Method, tasks: Sequence[str], step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores from 0 to 1 `(num_runs, 1)`, sorted by task, and the task of each run."""
    by_task = list(_at(method, tasks, step))
    strata = np.repeat(np.arange(len(by_task)), [len(scores) for scores in by_task])
    return np.concatenate(by_task)[:, None] / 100, strata


def _row(
    method: Method, reference: Method, tasks: Sequence[str], group_size: int, step: int
) -> dict[str, object]:
    """Return the row of a method; without seeds, it is a mean without an interval.

    Args:
        method: the method.
        reference: method against which the probability of improvement is computed.
        tasks: the common tasks.
        group_size: number of tasks in the group.
        step: env steps.
    """
    counts = [len(scores) for scores in _at(method, tasks, step)]
    seeds = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
    row: dict[str, object] = {
        **{"method": method.name, "source": method.source, "tasks": len(tasks)},
        **{"tasks_of_group": group_size, "seeds": seeds if method.has_seeds else "unknown"},
        "mean": _task_means(method, tasks, step).mean(),
    }
    if not method.has_seeds:
        return row
    scores, strata = _flat(method, tasks, step)
    for statistic in ("mean", "iqm"):
        row |= _cells(statistic, t_interval(statistic, scores, strata), 100)
    if method is not reference and reference.has_seeds:
        against = improvement_interval((scores, strata), _flat(reference, tasks, step))
        row |= _cells("improvement", against, 1)
    return row


def _cells(name: str, found: Interval, scale: float) -> dict[str, float]:
    """Return the cells of an interval; without a spread between seeds there is no interval."""
    point, low, high = (scale * float(part[0]) for part in (found.point, found.low, found.high))
    if not low < high:
        low = high = float("nan")
    return {name: point, f"{name}_low": low, f"{name}_high": high}


def text_table(board: Leaderboard) -> pd.DataFrame:
    """Return the table of a leaderboard as text, with the share of tasks beside every number."""

    def shown(row: pd.Series, name: str, digits: int) -> str:
        value, low, high = (row[f"{name}{bound}"] for bound in ("", "_low", "_high"))
        if np.isnan(value):
            return "—"
        interval = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"{value:.{digits}f}{interval}"

    rows = [
        {
            "method": row["method"],
            "source": row["source"],
            "tasks": f"{row['tasks']} of {row['tasks_of_group']}",
            "seeds": row["seeds"],
            "mean [95 %]": shown(row, "mean", 1),
            "IQM [95 %]": shown(row, "iqm", 1),
            f"P(better than {REFERENCE}) [95 %]": shown(row, "improvement", 2),
        }
        for _, row in board.table.iterrows()
    ]
    return pd.DataFrame(rows)
