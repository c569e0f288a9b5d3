"""Room of the statistics, and the only file that imports rliable.

Scores are arrays `(num_seeds, num_tasks, num_checkpoints)`. Intervals are rliable's
stratified-bootstrap percentile intervals: seeds are resampled within each task.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from rliable import library as rly

from analysis.problems import Problem
from analysis.records import RUN_KEY, SERIES, Records
from analysis.run_directory import SCORES

RLIABLE_VERSION = version("rliable")
INTERVAL = ["mean", "low", "high"]
TASK_CURVES = [
    *SERIES,
    *("domain", "task", "step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "seed_values", "missing_seeds", "reps"),
]
AGGREGATE_CURVES = [
    *SERIES,
    *("domain", "step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "num_tasks", "tasks", "reps"),
]
FLOOR_LINES = ["uniform", "zero", "untrained", "threshold"]
COVERAGE_NOTE = (
    "Few seeds give intervals that are too narrow: nominal 95 % intervals cover the true mean of "
    "one task in about 75 % of cases with three seeds and 50 % with two, the true mean over 104 "
    "tasks in about 89 % and 83 % (Gaussian scores)."
)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes:
        reps: number of bootstrap resamples.
        seed: seed of numpy's global generator while they are drawn.
    """

    reps: int
    seed: int = 0


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator inside the context and restores it afterwards.

    rliable 1.2.0 draws from that generator whatever `random_state` it is given.
    """
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def mean_interval(
    scores: np.ndarray, bootstrap: Bootstrap
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds and tasks with its 95 % interval, at each checkpoint.

    Args:
        scores: `(num_seeds, num_tasks, num_checkpoints)`.
        bootstrap: resamples and seed.

    Returns:
        mean, lower and upper bound, each `(num_checkpoints,)`; NaN bounds and a warning
        for a single seed, for which rliable would give an interval of width zero.

    Raises:
        ValueError: scores of another shape, empty, or holding NaN or infinities, any of
            which rliable would turn into NaN everywhere.
    """
    if scores.ndim != 3 or scores.size == 0:
        raise ValueError(
            f"scores must be (num_seeds, num_tasks, num_checkpoints), none of them 0; "
            f"got {scores.shape}"
        )
    if not np.isfinite(scores).all():
        seed, task, checkpoint = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"scores hold {scores[seed, task, checkpoint]} at seed index {seed}, "
            f"task index {task}, checkpoint index {checkpoint}"
        )
    if len(scores) == 1:
        warnings.warn("one seed: its mean has no interval", stacklevel=2)
        mean = scores.mean(axis=(0, 1))
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    with numpy_seeded(bootstrap.seed):
        points, intervals = rly.get_interval_estimates(
            {"scores": scores}, lambda resample: resample.mean(axis=(0, 1)), reps=bootstrap.reps
        )
    low, high = intervals["scores"]
    return points["scores"], low, high


def scores(records: Records) -> pd.DataFrame:
    """The rows of the tidy table that carry each task's published score.

    Returns:
        the tidy table's columns with `domain`, `score` and `normalised`, the value scaled
        to [0, 1] (return / 1000, or the success rate).
    """
    table = records.table.merge(records.runs[[*RUN_KEY, "domain", "score"]], on=RUN_KEY)
    metric = table["score"].map({name: score.metric for name, score in SCORES.items()})
    table = table[table["metric"] == metric]
    scale = table["score"].map({name: score.scale for name, score in SCORES.items()})
    return table.assign(normalised=table["value"] * scale.astype("float64"))


def task_curves(records: Records, bootstrap: Bootstrap) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Mean over seeds with its interval, per series, task and step.

    Only steps at which every seed of that series and task has a value are averaged; the
    others keep their single values, have no mean, and are listed as problems.

    Returns:
        columns `TASK_CURVES`, in units of the metric; `seeds` and `seed_values` are
        blank-separated and in the same order; and the problems met.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for key, group in scores(records).groupby([*SERIES, "domain", "task"]):
        where = _name(*key[: len(SERIES)], key[-1])
        grid = group.pivot(index="step", columns="seed", values="value")
        problems += _incomplete(grid, where)
        values = grid.to_numpy()
        complete = ~np.isnan(values).any(axis=1)
        bounds = np.full((len(grid), len(INTERVAL)), np.nan)
        if complete.any():
            bounds[complete] = _bounds(values[complete].T[:, None, :], bootstrap, where, problems)
        unit, metric = group["step_unit"].iloc[0], group["metric"].iloc[0]
        for step, bound, scored in zip(grid.index, bounds, values, strict=True):
            there = ~np.isnan(scored)
            seeds = grid.columns.to_numpy()
            words = (_words(seeds[there]), _words(scored[there]), _words(seeds[~there]))
            rows.append((*key, step, unit, metric, *bound, there.sum(), *words, bootstrap.reps))
    return pd.DataFrame(rows, columns=TASK_CURVES), tuple(problems)


def aggregate_curves(
    records: Records, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Mean normalised score over the tasks of a domain, per series and step.

    Every series is averaged over the same tasks, all that the records hold of the domain,
    and over the same seeds in each; a step or a series that lacks one is listed instead.

    Returns:
        columns `AGGREGATE_CURVES`, scores in [0, 1], and the problems met.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for domain, everything in scores(records).groupby("domain"):
        tasks = sorted(everything["task"].unique())
        for key, group in everything.groupby(SERIES):
            where = _name(*key, domain)
            seeds = sorted(group["seed"].unique())
            wanted = pd.MultiIndex.from_product([seeds, tasks], names=["seed", "task"])
            grid = group.pivot(index="step", columns=["seed", "task"], values="normalised")
            grid = grid.reindex(columns=wanted)
            problems += _incomplete(grid, where)
            grid = grid.dropna()
            if grid.empty:
                continue
            values = grid.to_numpy().T.reshape(len(seeds), len(tasks), len(grid))
            bounds = _bounds(values, bootstrap, where, problems)
            counts = (len(seeds), _words(seeds), len(tasks), _words(tasks), bootstrap.reps)
            unit = group["step_unit"].iloc[0]
            for step, bound in zip(grid.index, bounds, strict=True):
                rows.append((*key, domain, step, unit, "normalised_score", *bound, *counts))
    return pd.DataFrame(rows, columns=AGGREGATE_CURVES), tuple(problems)


def floors(records: Records) -> pd.DataFrame:
    """What a task scores without learning, where the records tell.

    The untrained agent is the best of the runs at env step 0; the threshold is the highest
    floor plus three times the largest standard deviation over episodes among the floors,
    so whatever lies above it lies above each run's own threshold too.

    Returns:
        indexed by task, columns `FLOOR_LINES`, NaN where something was not measured;
        uniform and zero action were measured as returns and are NaN for other metrics.
    """
    start = records.table[records.table["step"] == 0].groupby(["task", "metric"])["value"].max()
    measured = records.floors.set_index(["task", "policy"])[["mean", "sd"]].T.to_dict("list")
    lines: dict[str, list[float]] = {}
    for task, score in records.runs.groupby("task")["score"].first().items():
        metric = SCORES[score].metric
        untrained = (start.get((task, metric), np.nan), start.get((task, f"{metric}_sd"), np.nan))
        none = [np.nan, np.nan]
        returns = metric == "episode_return"
        idle = [measured.get((task, p), none) if returns else none for p in ("uniform", "zero")]
        means, sds = zip(*idle, untrained, strict=True)
        # np.max, unlike max, gives NaN as soon as one floor was not measured.
        lines[str(task)] = [*means, float(np.max(means) + 3 * np.max(sds))]
    return pd.DataFrame.from_dict(lines, orient="index", columns=FLOOR_LINES)


def _bounds(
    values: np.ndarray, bootstrap: Bootstrap, where: str, problems: list[Problem]
) -> np.ndarray:
    """`mean_interval` as `(num_checkpoints, 3)`, its warnings turned into problems."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bounds = np.stack(mean_interval(values, bootstrap), axis=1)
    problems += [Problem(where, None, str(entry.message), "warning") for entry in caught]
    return bounds


def _incomplete(grid: pd.DataFrame, where: str) -> list[Problem]:
    """At most one problem, naming what lacks steps that others have.

    Args:
        grid: one step a row, one seed, or seed and task, a column.
        where: the series, for the problem.
    """
    lacks = []
    for column, lacking in grid.isna().items():
        if lacking.any():
            name = (
                " of ".join(str(part) for part in column) if isinstance(column, tuple) else column
            )
            steps = grid.index[lacking]
            span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
            lacks.append(f"seed {name} lacks {len(steps)} ({span})")
    if not lacks:
        return []
    named = "; ".join(lacks[:3]) + (f"; and {len(lacks) - 3} more" if len(lacks) > 3 else "")
    missing = grid.isna().any(axis=1).sum()
    what = f"{missing} of {len(grid)} steps not averaged: {named}"
    return [Problem(where, None, what, "warning")]


def _name(*parts: Any) -> str:
    """Series and task or domain, as named in problems."""
    return "/".join(str(part) for part in parts if part != "")


def _words(values: Any) -> str:
    """Blank-separated values."""
    return " ".join(str(value) for value in values)
