"""Mean learning curves of single tasks, and their reference scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.records.curve_checks import MAX_RETURN
from analysis.records.evaluations import ENV_STEPS, score_of
from analysis.records.load import SERIES, Records
from analysis.records.problems import Problem
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import coverage_of, studies_of
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import INTERVAL, incomplete, intervals, joined, series_name

TASK_CURVES = [
    *SERIES,
    *("domain", "task", "step", "step_unit", "metric", *INTERVAL),
    *("num_seeds", "seeds", "seed_values", "missing_seeds", "reps", "coverage"),
]
REFERENCE_LINES = ["uniform", "zero", "untrained", "threshold"]


def task_curves(
    curves: ScoreCurves, rule: Rule, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return the mean over seeds with its interval, per series, task and recorded step.

    Unless the rule fills nothing in, only steps at which every seed of that series and task has a
    value are averaged. The other steps keep the values of single seeds, have no mean, and are
    listed as problems.

    Args:
        curves: all runs.
        rule: treatment of missing and repeated evaluations.
        bootstrap: number of simulated studies that measure the coverage, and seed.

    Returns:
        Columns `TASK_CURVES`, in units of the metric, where `seeds` and `seed_values` are separated
        by blanks and in the same order; and the problems found.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    studies = studies_of(bootstrap).reps
    for key, runs in curves.runs.groupby([*SERIES, "domain", "task"]):
        where = series_name(*key[: len(SERIES)], key[-1])
        runs = runs.sort_values("seed")
        seeds = runs["seed"].to_numpy()
        members = runs.index.to_numpy()
        steps = curves.grid(members)
        values = curves.values(members, steps, rule)
        problems += incomplete(steps, values, [f"seed {seed}" for seed in seeds], rule, where)
        if len(seeds) == 1:
            what = "one seed: its mean has no interval"
            problems.append(Problem(where, None, what, "warning"))
        strata = np.zeros(len(seeds), int)
        bounds = intervals("mean", values, strata, rule, _limits(runs))
        share = coverage_of("mean", curves, (members, strata), np.inf, bootstrap)
        metric = runs["metric"].iloc[0]
        for step, bound, scored in zip(steps, bounds, values.T, strict=True):
            present = ~np.isnan(scored)
            seed_columns = (
                joined(seeds[present]),
                joined(scored[present]),
                joined(seeds[~present]),
            )
            head = (*key, step, curves.step_unit, metric)
            rows.append((*head, *bound, present.sum(), *seed_columns, studies, share))
    return pd.DataFrame(rows, columns=TASK_CURVES), tuple(problems)


def _limits(runs: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the scores of a task that its runs can have."""
    if runs["metric"].iloc[0] == "episode_success":
        return 0.0, 1.0
    most = MAX_RETURN.get(str(runs["domain"].iloc[0]))
    return (-np.inf, np.inf) if most is None else (0.0, most)


def reference_scores(records: Records) -> pd.DataFrame:
    """Return the reference scores of each task, which a trained agent must exceed.

    They are the scores of uniform random actions, of zero actions and of the untrained agent, and a
    threshold. The untrained score is the best of the runs at env step 0. The threshold is the
    highest reference score plus three times the largest standard deviation over episodes, so a
    score above it is also above the threshold of each single run.

    Returns:
        One row per task, columns `REFERENCE_LINES`, NaN if something was not measured. Uniform and
        zero actions were measured as returns, so they are NaN for other metrics.
    """
    records = records.select(step_unit=ENV_STEPS)
    table = records.table[records.table["source"] == RUNS_SOURCE]
    start = table[table["step"] == 0].groupby(["task", "metric"])["value"].max()
    measured = records.reference_scores.set_index(["task", "policy"])[["mean", "sd"]].T.to_dict(
        "list"
    )
    lines: dict[str, list[float]] = {}
    for task, score in records.runs.groupby("task")["score"].first().items():
        metric = score_of(score).metric
        untrained = (start.get((task, metric), np.nan), start.get((task, f"{metric}_sd"), np.nan))
        none = [np.nan, np.nan]
        returns = metric == "episode_return"
        idle = [measured.get((task, p), none) if returns else none for p in ("uniform", "zero")]
        means, sds = zip(*idle, untrained, strict=True)
        # np.max, unlike max, returns NaN if one of the scores was not measured.
        lines[str(task)] = [*means, float(np.max(means) + 3 * np.max(sds))]
    return pd.DataFrame.from_dict(lines, orient="index", columns=REFERENCE_LINES)
