"""Leaderboard: methods of several sources on the tasks and at the steps that all of them have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.field_results import MEAN, Series
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import (
    EVALUATIONS,
    Pools,
    coverage_of_pair,
    simulated,
)
from analysis.stats.estimate_texts import estimate_text
from analysis.stats.intervals import Interval
from analysis.stats.t_intervals import improvement_interval, t_interval
from tdmpc2.envs.tasks import SUITES, TASKS

LEAST_TASKS = 3
"""Least number of common tasks of a table."""
LEAST_SEEDS = 2
"""Least number of seeds with an evaluation at a step, of a method with several seeds."""
SHARE_OF_TASKS = 0.8
"""Least share of the common tasks that have an evaluation at the step that is chosen."""
REFERENCE = "tdmpc2"
"""Method against which the probability of improvement is computed, if its seeds are there."""
COLUMNS = (
    *("method", "source", "tasks", "tasks_of_group", "seeds", "mean", "mean_low", "mean_high"),
    *("iqm", "iqm_low", "iqm_high", "improvement", "improvement_low", "improvement_high"),
    *("mean_coverage", "iqm_coverage", "improvement_coverage"),
)
STUDIES = Bootstrap(1000)
"""Simulated studies that measure the coverage of intervals."""


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
        reference: method and source that the probability of improvement compares with.
        table: a row per method with `COLUMNS`, best mean first.
        per_task: mean score of each method on each common task.
        curves: mean score of each method at each common step.
        bands: method, source, env step, and mean score with its interval; a row for each step at
            which the method has all common tasks.
    """

    group: str
    tasks: tuple[str, ...]
    group_size: int
    step: int
    reference: tuple[str, str]
    table: pd.DataFrame
    per_task: pd.DataFrame
    curves: pd.DataFrame
    bands: pd.DataFrame

    @property
    def title(self) -> str:
        """Common tasks of the group, and env steps, as text."""
        return f"{len(self.tasks)} of {self.group_size} tasks, after {self.step:,} env steps"

    @property
    def reference_label(self) -> str:
        """Name of the reference, with its source if several sources have the method."""
        name, source = self.reference
        return f"{name} ({source})" if (self.table["method"] == name).sum() > 1 else name


def methods_of(series: Iterable[Series]) -> list[Method]:
    """Return the methods, in the order of the series."""
    found: dict[tuple[str, str], dict[str, list[Series]]] = {}
    for one in series:
        found.setdefault((one.source, one.method), {}).setdefault(one.task, []).append(one)
    return [Method(source, name, tasks) for (source, name), tasks in found.items()]


def leaderboards(
    methods: Sequence[Method],
    groups: Sequence[str],
    problems: list[Problem],
    step: int | None = None,
) -> list[Leaderboard]:
    """Return the comparison of each group that has one.

    Args:
        methods: methods to compare.
        groups: names of suites.
        problems: list to which what is left out is appended.
        step: env steps; None for the largest that most common tasks have.
    """
    suites = {group: [task.name for task in SUITES[group]] for group in groups}
    found = [leaderboard(name, tasks, methods, problems, step) for name, tasks in suites.items()]
    return [board for board in found if board is not None]


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
        what = "no step at which all methods have been evaluated on the tasks that all have"
        if chosen:
            there = f"{len(tasks_there)} task{'s' * (len(tasks_there) != 1)}"
            what = f"{there} with an evaluation of all methods after {chosen:,} env steps"
        problems.append(Problem(group, None, what, "warning"))
        return None
    if len(tasks_there) < len(shared):
        absent = ", ".join(task for task in shared if task not in tasks_there)
        what = f"without an evaluation of all methods after {chosen:,} env steps: {absent}"
        problems.append(Problem(group, None, what, "warning"))
    shared, steps = tasks_there, set.intersection(*(grids[task] for task in tasks_there))
    reference = _reference(present)
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
    bands = pd.DataFrame(
        [_band(method, shared, one) for method in present for one in _own_steps(method, shared)]
    )
    named = per_task.rename_axis("task")
    key = reference.name, reference.source
    return Leaderboard(group, tuple(shared), len(rated), chosen, key, table, named, curves, bands)


def _reference(methods: Sequence[Method]) -> Method:
    """Return the reference: of the methods with seeds, `REFERENCE` or else the first."""
    compared = [method for method in methods if method.has_seeds] or methods
    return next((method for method in compared if method.name == REFERENCE), compared[0])


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
                "in common with the others; `leaderboard.py methods=` compares fewer methods"
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


def _own_steps(method: Method, tasks: Sequence[str]) -> list[int]:
    """Return the steps after 0 at which a method has enough seeds on each task, ascending."""
    return sorted(set.intersection(*(_common_steps([method], task) for task in tasks)))


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
    pools, sizes = _pools(method, tasks, step)
    for statistic in ("mean", "iqm"):
        row |= _cells(statistic, t_interval(statistic, scores, strata), 100)
        if has_interval(row, statistic):
            row[f"{statistic}_coverage"] = simulated(statistic, pools, sizes, STUDIES)
    if method is not reference and reference.has_seeds:
        against = improvement_interval((scores, strata), _flat(reference, tasks, step))
        row |= _cells("improvement", against, 1)
        if has_interval(row, "improvement"):
            theirs, their_sizes = _pools(reference, tasks, step)
            row["improvement_coverage"] = coverage_of_pair(
                "improvement", (pools, theirs), (sizes, their_sizes), STUDIES
            )
    return row


def has_interval(row: Mapping[Any, Any], name: str) -> bool:
    """Return whether a row has an interval of a statistic."""
    return bool(pd.notna(row[f"{name}_low"]))


def _pools(method: Method, tasks: Sequence[str], step: int) -> tuple[Pools, tuple[int, ...]]:
    """Return the last scores of the seeds evaluated at a step, and their number, by task."""
    chosen = [[one for one in method.tasks[task] if step in one.steps] for task in tasks]
    pools = [
        np.concatenate(
            [one.scores[(one.steps > 0) & (one.steps <= step)][-EVALUATIONS:] for one in own]
        )
        for own in chosen
    ]
    return tuple(tuple((pool / 100).tolist()) for pool in pools), tuple(map(len, chosen))


def _band(method: Method, tasks: Sequence[str], step: int) -> dict[str, object]:
    """Return the mean at a step with its interval, which methods without seeds do not have."""
    row: dict[str, object] = {"method": method.name, "source": method.source, "env_step": step}
    if not method.has_seeds:
        return {**row, "mean": _task_means(method, tasks, step).mean()}
    return {**row, **_cells("mean", t_interval("mean", *_flat(method, tasks, step)), 100)}


def _cells(name: str, found: Interval, scale: float) -> dict[str, float]:
    """Return the cells of an interval, which ends at the range of possible scores.

    Without a spread between seeds there is no interval.
    """
    point, low, high = (scale * float(part[0]) for part in (found.point, found.low, found.high))
    low, high = max(low, min(0.0, point)), min(high, max(scale, point))
    if not low < high:
        low = high = float("nan")
    return {name: point, f"{name}_low": low, f"{name}_high": high}


def text_table(board: Leaderboard, reference: str | None = None) -> pd.DataFrame:
    """Return the table of a leaderboard as text, with the share of tasks beside every number.

    Intervals are 95 % intervals, or labeled with their measured coverage.

    Args:
        board: the comparison.
        reference: label of the method that the probability of improvement compares with; None for
            its name in records.
    """
    than = board.reference_label if reference is None else reference

    def shown(row: pd.Series, name: str, digits: int) -> str:
        value, low, high = (row[f"{name}{bound}"] for bound in ("", "_low", "_high"))
        coverage = row[f"{name}_coverage"]
        return estimate_text(value, low, high, coverage, form=f".{digits}f") or "—"

    rows = [
        {
            "method": row["method"],
            "source": row["source"],
            "tasks": f"{row['tasks']} of {row['tasks_of_group']}",
            "seeds": row["seeds"],
            "mean [95 %]": shown(row, "mean", 1),
            "IQM [95 %]": shown(row, "iqm", 1),
            f"P(better than {than}) [95 %]": shown(row, "improvement", 2),
        }
        for _, row in board.table.iterrows()
    ]
    return pd.DataFrame(rows)
