"""Checks of learning curves, the same for every source: steps, scores, seeds and tasks."""

from __future__ import annotations

import math
import sys
from difflib import get_close_matches

from analysis.records.problems import Problem
from tdmpc2.envs.tasks import ALIASES, TASKS

MAX_STEP = 10**12
"""Largest credible step."""
MAX_SEEDS = 255
"""Largest number of seeds of a method on a task."""
MAX_RETURN = {"dmcontrol": 1000.0}
"""Largest return of an episode by domain, where rewards are bounded; the smallest is 0."""
_TOLERANCE = 1e-3


class PercentError(ValueError):
    """A rate of success that looks like a percentage: others of its curve, up to 1, do not."""


def plain_float(text: str) -> float:
    """Return the number in a field.

    Python also reads `1_0` and digits of other scripts as numbers; in records they are damage.

    Raises:
        ValueError: If it is not a number.
    """
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def number(text: object, name: str) -> float:
    """Return the finite number in a field.

    Raises:
        ValueError: If it is not a finite number.
    """
    try:
        value = plain_float(str(text))
    except ValueError:
        raise ValueError(f"{name} is not a number: '{text}'") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}, not a finite number")
    return value


def step(text: object, name: str = "step") -> int:
    """Return the step in a field.

    Raises:
        ValueError: If it is not an integer from 0 to `MAX_STEP`.
    """
    value = number(text, name)
    if value < 0 or not value.is_integer():
        raise ValueError(f"{name} is {text}, not a non-negative integer")
    if value > MAX_STEP:
        raise ValueError(f"{name} is {text}, more than {MAX_STEP:,}: not a count of steps")
    return int(value)


def limits(kind: str | None, task: str) -> tuple[float, float]:
    """Return the smallest and the largest score that a task can give.

    Args:
        kind: `return` or `success`; None for a metric without limits.
        task: name of the task.
    """
    if kind == "success":
        return 0.0, 1.0
    most = MAX_RETURN.get(TASKS[task].domain) if kind == "return" and task in TASKS else None
    largest = sys.float_info.max
    return (-largest, largest) if most is None else (-_TOLERANCE, most + _TOLERANCE)


def score(text: object, kind: str | None, task: str, name: str) -> float:
    """Return the score in a field.

    Args:
        text: content of the field.
        kind: `return` or `success`; None for a metric without limits.
        task: name of the task.
        name: name of the field, for messages.

    Raises:
        PercentError: If it looks like a rate in percent.
        ValueError: If it is not a finite number that the task can give.
    """
    value = number(text, name)
    low, high = limits(kind, task)
    if low <= value <= high:
        return value
    if kind == "success":
        what = f"{name} is {text}, not a fraction from 0 to 1"
        if 1 + _TOLERANCE < value <= 100:
            raise PercentError(f"{what}: percent? divide by 100")
        raise ValueError(what)
    raise ValueError(f"{name} is {text}, but returns of {task} lie between 0 and {high:.0f}")


def seed(text: object) -> int:
    """Return the seed in a field; `1.0` is 1.

    Raises:
        ValueError: If it is not a non-negative integer.
    """
    try:
        value = plain_float(str(text))
    except ValueError:
        value = math.nan
    if not value.is_integer():  # also NaN and infinity
        raise ValueError(f"seed is not an integer: '{text}'")
    if not 0 <= value <= MAX_STEP:
        raise ValueError(f"seed is {text}, not from 0 to {MAX_STEP:,}")
    return int(value)


def task_named(name: str) -> str:
    """Return the name in the task table of a task as simulators and other projects write it.

    `ball_in_cup-catch`, `cartpole-swingup_sparse`, `assembly-v2` and `myo-reach` are
    `cup-catch`, `cartpole-swingup-sparse`, `mw-assembly` and `myo-hand-reach`. A name that is not
    in the table is returned as it is: a task of the user's own.
    """
    if name in TASKS:
        return name
    plain = name.lower().replace("_", "-").replace("/", "-")
    base = plain.removeprefix("dmc-")
    versionless = base[:-3] if base[-3:] in ("-v1", "-v2", "-v3") else base
    for candidate in (plain, base, f"mw-{versionless.removeprefix('mw-')}"):
        known = ALIASES.get(candidate, candidate)
        if known in TASKS:
            return known
    return name


def own_task(name: str, where: str, line: int | None) -> Problem:
    """Return the problem that a task is not in the table.

    Args:
        name: name of the task.
        where: the file or folder.
        line: 1-based line number in the file, None if no line applies.
    """
    close = get_close_matches(name, TASKS, 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    what = f"unknown task '{name}'{hint}; shown as a task of your own, without a normalized score"
    return Problem(where, line, what, "warning", unknown_task=name)
