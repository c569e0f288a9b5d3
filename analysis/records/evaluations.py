"""Evaluations of a run: reader of `eval.csv`, its metrics, and the units of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from analysis.records.csv_lines import count_in, fields_of, whole_lines
from analysis.records.curve_checks import limits, plain_float, score
from analysis.records.problems import Problem

METRICS = ("episode_return", "episode_return_sd", "episode_success", "episode_length")
LATER_METRICS = ("episode_success_ever",)  # absent from records of version 0.1.0
KINDS = {
    "episode_return": "return",
    "episode_success": "success",
    "episode_success_ever": "success",
}
"""Kind of score by metric, for metrics that a task limits."""
MULTITASK_METRIC = "score"
"""Metric in the spec and in the evaluations of a multi-task run."""
StepUnit = Literal["env_steps", "num_updates"]
"""Unit of the steps of a run: control steps of the simulator, or gradient updates."""
ENV_STEPS: StepUnit = "env_steps"
NUM_UPDATES: StepUnit = "num_updates"


@dataclass(frozen=True, eq=False)
class Points:
    """Evaluations of one run, in the order of its file.

    Attributes:
        steps: steps in the run's `step_unit`, `(num_points,)`.
        values: values of each metric in the file, `(num_points,)`.
        tasks: position of the evaluated task in the run's `tasks`, `(num_points,)`.
    """

    steps: np.ndarray
    values: dict[str, np.ndarray]
    tasks: np.ndarray

    @classmethod
    def of(
        cls, rows: Sequence[tuple[int, dict[str, float]]], tasks: Sequence[int] | None = None
    ) -> Points:
        """Build the points from rows that all have the same metrics.

        Args:
            rows: step, and value of each metric.
            tasks: position of the task of each row; None if the run has one task.
        """
        names = rows[0][1] if rows else ()
        return cls(
            np.array([step for step, _ in rows], dtype="int64"),
            {name: np.array([values[name] for _, values in rows]) for name in names},
            np.zeros(len(rows), "int64") if tasks is None else np.array(tasks, "int64"),
        )

    def of_task(self, place: int) -> Points:
        """Return the points of the task at a position."""
        own = self.tasks == place
        values = {name: column[own] for name, column in self.values.items()}
        return Points(self.steps[own], values, self.tasks[own])


def averaged(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps in ascending order without repetitions, and the mean value at each.

    Args:
        steps: `(num_points,)`, in any order.
        values: `(num_points,)`.
    """
    unique, inverse, counts = np.unique(steps, return_inverse=True, return_counts=True)
    return unique, np.bincount(inverse, values) / counts


@dataclass(frozen=True)
class Score:
    """Mapping from a task's published metric to the recorded metrics.

    Attributes:
        metric: metric of the tidy table that holds the score.
        scale: factor that maps the score, less its offset, to [0, 1]; NaN if it has no range.
        label: axis label.
        offset: score that is mapped to 0.
    """

    metric: str
    scale: float
    label: str
    offset: float = 0.0


_RETURN = Score("episode_return", 1 / 1000, "episode return")
_SUCCESS = Score("episode_success", 1.0, "success rate")
TASK_SCORES = {"return": _RETURN, "return/10": _RETURN, "success": _SUCCESS, "success%": _SUCCESS}
OWN_RETURN = "own return"
"""Score of a task that is not in the task table: its return, which nothing normalizes."""
SCORES = {
    **TASK_SCORES,
    MULTITASK_METRIC: Score(MULTITASK_METRIC, 1 / 100, "score (%)"),
    OWN_RETURN: Score("episode_return", float("nan"), "episode return"),
}
"""Score by the `metric` of a spec; the paper reports return / 10 and success in percent, and
evaluations of multi-task agents record that."""


def score_name(metric: str, score_range: Sequence[float] | None) -> str:
    """Return the name of the score of a task whose returns have a range of their own, or none."""
    if metric != "return":
        return metric
    low, high = score_range or (math.nan, math.nan)
    return f"return {low:g} to {high:g}"


def score_of(name: str) -> Score:
    """Return the score with a name: a key of `SCORES`, or one that `score_name` returned."""
    if name in SCORES:
        return SCORES[name]
    low, high = map(float, name.removeprefix("return ").split(" to "))
    return Score(_RETURN.metric, 1 / (high - low), _RETURN.label, low)


def is_success(name: object) -> bool:
    """Return whether the score with a name is a success rate."""
    return str(name).startswith("success")


def read_evaluations(
    path: Path, problems: list[Problem], tasks: Sequence[str] = (), *, task: str = ""
) -> Points:
    """Return the valid points of an `eval.csv`, in the order of the file.

    Args:
        path: the file; every complete line ends in a newline.
        problems: list to which missing columns and skipped lines are appended.
        tasks: tasks of a multi-task run, whose lines hold one task each; empty for other runs.
        task: task of another run.
    """
    lines = whole_lines(path, problems)
    if not lines:
        return Points.of([])
    header = lines[0].strip().split(",")
    step, *others = ("num_updates", "task", MULTITASK_METRIC) if tasks else ("env_step",)
    missing = [name for name in (step, *others, *METRICS) if name not in header]
    if missing:
        problems.append(Problem(str(path), 1, f"missing column {', '.join(missing)}"))
    if not {step, *others}.isdisjoint(missing):
        return Points.of([])
    known = [*METRICS, *LATER_METRICS, *([MULTITASK_METRIC] if tasks else [])]
    metrics = [name for name in known if name in header]
    if twice := [name for name in (step, *others, *metrics) if header.count(name) > 1]:
        what = f"column {', '.join(twice)} occurs twice; file skipped"
        problems.append(Problem(str(path), 1, what))
        return Points.of([])
    ranges = {own: [limits(KINDS.get(name), own) for name in metrics] for own in tasks or (task,)}
    rows: list[tuple[int, dict[str, float]]] = []
    places: list[int] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = fields_of(header, line)
            place = _place(row["task"], tasks) if tasks else 0
            own = tasks[place] if tasks else task
            values = {
                name: _value(row[name], name, own, span)
                for name, span in zip(metrics, ranges[own], strict=True)
            }
            rows.append((count_in(row, step), values))
            places.append(place)
        except ValueError as error:
            problems.append(Problem(str(path), number, f"{error}; line skipped"))
    return Points.of(rows, places)


def _value(text: str, name: str, task: str, span: tuple[float, float]) -> float:
    """Return the value of a metric; raise ValueError if the task cannot give it.

    Args:
        text: the field.
        name: name of the metric.
        task: name of the task.
        span: limits of the metric on this task.
    """
    try:
        value = plain_float(text)
    except ValueError:
        value = math.nan
    return value if span[0] <= value <= span[1] else score(text, KINDS.get(name), task, name)


def _place(task: str, tasks: Sequence[str]) -> int:
    """Return the position of a task; raise ValueError if it is not one of the run's tasks."""
    if task not in tasks:
        raise ValueError(f"unknown task {task!r}, not one of the run's {len(tasks)} tasks")
    return tasks.index(task)
