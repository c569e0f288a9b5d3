"""Comparison of our runs with the published curves, and of variants with the default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import SERIES
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats.equivalence import (
    WORST_FIRST,
    Difference,
    difference,
    mean_difference,
    seeds_needed,
)
from analysis.stats.margins import DOMAIN_MARGINS, OPEN, OTHER_MARGIN
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES, Rule

OUTCOME = ["difference", "low", "high", "margin", "verdict"]
TASK_COLUMNS = [*SERIES, "domain", "task", "env_step", "ours", "theirs", "num_ours", "num_theirs"]


def compare_tasks(curves: ScoreCurves, rule: Rule, variant: str, margin: float) -> pd.DataFrame:
    """Compare every task of our runs that has published curves.

    Args:
        curves: our runs and the published curves.
        rule: treatment of missing and repeated evaluations. Between two published evaluations,
            scores are interpolated linearly.
        variant: variant of our runs.
        margin: equivalence margin, in points.

    Returns:
        Columns `TASK_COLUMNS`, `OUTCOME`, `error`, `freedom`, `seeds_needed` and `remark`.
    """
    runs = curves.runs
    theirs = runs["source"] == PUBLISHED
    rows: list[dict[str, Any]] = []
    named = runs["variant"].str.split("[").str[0] == variant
    for key, ours in runs[~theirs & named].groupby([*SERIES, "obs", "domain", "task"]):
        source, method, own_variant, size, dataset, obs, domain, task = key
        same = theirs & (runs["method"] == method) & (runs["task"] == task) & (runs["obs"] == obs)
        if not same.any():
            continue
        others = np.flatnonzero(same.to_numpy())
        row = dict(zip(TASK_COLUMNS, (source, method, own_variant, size, dataset), strict=False))
        row |= {"domain": domain, "task": task, "margin": margin}
        row |= _compare(curves, ours.index.to_numpy(), others, rule, margin)
        rows.append(row)
    columns = [*TASK_COLUMNS, *OUTCOME, "error", "freedom", "seeds_needed", "remark"]
    return pd.DataFrame(rows, columns=columns).astype({"seeds_needed": "Int64"})


def compare_domains(tasks: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """Compare the means over the tasks of each domain, and over all tasks.

    Args:
        tasks: result of `compare_tasks`.
        margin: equivalence margin, in points; None for the default of each method.

    Returns:
        Columns `SERIES`, domain, num_tasks, compared, ours, theirs, `OUTCOME`, and the number of
        tasks with each verdict.
    """
    rows = []
    for series, members in tasks.groupby(SERIES):
        domains = [*members.groupby("domain")]
        if len(domains) > 1:
            domains.append(("all", members))
        for domain, own in domains:
            bound = margin or DOMAIN_MARGINS.get(str(series[1]), OTHER_MARGIN)
            compared = own.dropna(subset="difference")
            differences = [
                Difference(row.difference, row.error, row.freedom) for row in compared.itertuples()
            ]
            row = dict(zip(SERIES, series, strict=True)) | {"domain": domain, "margin": bound}
            row |= {"num_tasks": len(own), "compared": len(compared)}
            row |= {name: compared[name].mean() for name in ("ours", "theirs")}
            row |= outcome(mean_difference(differences) if differences else None, bound)
            row |= {name: (own["verdict"] == name).sum() for name in WORST_FIRST}
            rows.append(row)
    columns = [*SERIES, "domain", "num_tasks", "compared", "ours", "theirs", *OUTCOME]
    return pd.DataFrame(rows, columns=[*columns, *WORST_FIRST])


def _compare(
    curves: ScoreCurves, ours: np.ndarray, theirs: np.ndarray, rule: Rule, margin: float
) -> dict[str, Any]:
    """Compare one task at the last env step that all our seeds and the published curves reach."""
    step = min(curves.reached[ours].min(), curves.grid(theirs)[-1])
    first = curves.grid(theirs)[curves.grid(theirs) > 0][0]
    row: dict[str, Any] = {"env_step": int(step)}
    row |= {"num_ours": len(ours), "num_theirs": len(theirs)}
    if step < first:
        remark = f"ends before the first published evaluation at {first:,}"
        return row | outcome(None, margin) | {"remark": remark}
    at = np.array([step])
    mine = 100 * curves.values(ours, at, rule, normalized=True)[:, 0]
    other = 100 * curves.values(theirs, at, RULES["linear"], normalized=True)[:, 0]
    gap = difference(mine, other)
    row |= {"ours": mine.mean(), "theirs": other.mean()}
    row |= {"error": gap.error, "freedom": gap.freedom} | outcome(gap, margin)
    if row["verdict"] == OPEN:
        row["seeds_needed"] = seeds_needed(mine, other, margin)
        row["remark"] = "a single seed has no interval" if len(ours) == 1 else ""
    return row


def outcome(gap: Difference | None, margin: float) -> dict[str, Any]:
    """Return the columns `OUTCOME` of a difference; without one, the verdict is `OPEN`."""
    if gap is None:
        return {"verdict": OPEN, "margin": margin}
    low, high = gap.interval(0.95)
    values = {"difference": gap.value, "low": low, "high": high, "margin": margin}
    return values | {"verdict": gap.verdict(margin)}


def against_default(curves: ScoreCurves, rule: Rule) -> pd.DataFrame:
    """Compare every variant with the default of its method, on the tasks that both have.

    Args:
        curves: all runs, of which only run directories are used.
        rule: treatment of missing and repeated evaluations.

    Returns:
        Method, variant, number of tasks, the last env steps that both have, both means, and the
        mean difference in points with its 95 % interval.
    """
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    rows: list[dict[str, Any]] = []
    for series, variant in runs[runs["variant"] != "default"].groupby(SERIES):
        is_default = (runs["variant"] == "default") & (runs["method"] == series[1])
        differences, steps, means = [], [], []
        for task, ours in variant.groupby("task"):
            theirs = runs.index[is_default & (runs["task"] == task)].to_numpy()
            if not len(theirs):
                continue
            both = [ours.index.to_numpy(), theirs]
            # `reached` is infinite for runs that have completed the paper's budget.
            last = max(curves.last_steps[side].max() for side in both)
            step = min(last, *(curves.reached[side].min() for side in both))
            at = np.array([step])
            sides = [100 * curves.values(s, at, rule, normalized=True)[:, 0] for s in both]
            differences.append(difference(*sides))
            steps.append(int(step))
            means.append([side.mean() for side in sides])
        if differences:
            gap = mean_difference(differences)
            low, high = gap.interval(0.95)
            row = {"method": series[1], "variant": series[2], "tasks": len(differences)}
            row |= {"env steps": " ".join(f"{step:,}" for step in dict.fromkeys(steps))}
            row |= dict(zip(("score", "default"), np.mean(means, axis=0), strict=True))
            rows.append({**row, "difference": gap.value, "low": low, "high": high})
    return pd.DataFrame(rows)
