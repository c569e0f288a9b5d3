"""Room of the comparisons: ours against the published curves, and variants against the default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import PUBLISHED, RUNS_SOURCE, SERIES
from analysis.stats.equivalence import (
    WORST_FIRST,
    Difference,
    difference,
    mean_difference,
    seeds_needed,
)
from analysis.stats.ragged_curves import RULES, Rule, ScoreCurves

TASK_MARGIN = 10.0
DOMAIN_MARGINS = {"tdmpc2": 3.0}
OTHER_MARGIN = 5.0
OUTCOME = ["difference", "low", "high", "margin", "verdict"]
TASK_COLUMNS = [*SERIES, "domain", "task", "env_step", "ours", "theirs", "num_ours", "num_theirs"]
OPEN = "not enough data"


def compare_tasks(curves: ScoreCurves, rule: Rule, variant: str, margin: float) -> pd.DataFrame:
    """Every task of every series of ours that has published curves.

    Args:
        curves: ours and the published ones.
        rule: what counts where a step was not recorded; between two published evaluations scores
            are interpolated.
        variant: of ours.
        margin: in points.

    Returns:
        columns `TASK_COLUMNS`, `OUTCOME`, `error`, `freedom` and `seeds_needed`.
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
    """Means over the tasks of a domain, and over all, of what `compare_tasks` found.

    Args:
        tasks: from `compare_tasks`.
        margin: in points; None for the default of each method.

    Returns:
        columns `SERIES`, domain, num_tasks, ours, theirs, `OUTCOME`, and the number of tasks of
        each verdict.
    """
    rows = []
    for series, members in tasks.groupby(SERIES):
        domains = [*members.groupby("domain")]
        if len(domains) > 1:
            domains.append(("all", members))
        for domain, own in domains:
            bound = margin or DOMAIN_MARGINS.get(str(series[1]), OTHER_MARGIN)
            compared = own.dropna(subset="difference")
            parts = [
                Difference(row.difference, row.error, row.freedom) for row in compared.itertuples()
            ]
            row = dict(zip(SERIES, series, strict=True)) | {"domain": domain, "margin": bound}
            row |= {"num_tasks": len(own), "compared": len(compared)}
            row |= {name: compared[name].mean() for name in ("ours", "theirs")}
            row |= _outcome(mean_difference(parts) if parts else None, bound)
            row |= {name: (own["verdict"] == name).sum() for name in WORST_FIRST}
            rows.append(row)
    columns = [*SERIES, "domain", "num_tasks", "compared", "ours", "theirs", *OUTCOME]
    return pd.DataFrame(rows, columns=[*columns, *WORST_FIRST])


def _compare(
    curves: ScoreCurves, ours: np.ndarray, theirs: np.ndarray, rule: Rule, margin: float
) -> dict[str, Any]:
    """One task at the last env step that all our seeds have, and the published ones too."""
    step = min(_reached(curves, ours), curves.grid(theirs)[-1])
    first = curves.grid(theirs)[curves.grid(theirs) > 0][0]
    found: dict[str, Any] = {"env_step": int(step)}
    found |= {"num_ours": len(ours), "num_theirs": len(theirs)}
    if step < first:
        remark = f"ends before the first published evaluation at {first:,}"
        return found | _outcome(None, margin) | {"remark": remark}
    at = np.array([step])
    mine = 100 * curves.values(ours, at, rule, normalized=True)[:, 0]
    other = 100 * curves.values(theirs, at, RULES["linear"], normalized=True)[:, 0]
    between = difference(mine, other)
    found |= {"ours": mine.mean(), "theirs": other.mean()}
    found |= {"error": between.error, "freedom": between.freedom} | _outcome(between, margin)
    if found["verdict"] == OPEN:
        found["seeds_needed"] = seeds_needed(mine, other, margin)
        found["remark"] = "a single seed has no interval" if len(ours) == 1 else ""
    return found


def _outcome(found: Difference | None, margin: float) -> dict[str, Any]:
    """The columns `OUTCOME` of a difference; of none, that there are not enough data."""
    if found is None:
        return {"verdict": OPEN, "margin": margin}
    low, high = found.interval(0.95)
    values = {"difference": found.value, "low": low, "high": high, "margin": margin}
    return values | {"verdict": found.verdict(margin)}


def against_default(curves: ScoreCurves, rule: Rule) -> pd.DataFrame:
    """Every variant that was run against the default of its method, over the tasks of both.

    Args:
        curves: of all runs; only run directories count.
        rule: what counts where a step was not recorded.

    Returns:
        method, variant, tasks, the last env steps that both have, both means, and the mean
        difference in points with its 95 % interval.
    """
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    rows: list[dict[str, Any]] = []
    for series, variant in runs[runs["variant"] != "default"].groupby(SERIES):
        alike = (runs["variant"] == "default") & (runs["method"] == series[1])
        parts, steps, means = [], [], []
        for task, ours in variant.groupby("task"):
            theirs = runs.index[alike & (runs["task"] == task)].to_numpy()
            if not len(theirs):
                continue
            both = [ours.index.to_numpy(), theirs]
            step = min(_reached(curves, side) for side in both)
            at = np.array([step])
            sides = [100 * curves.values(s, at, rule, normalized=True)[:, 0] for s in both]
            parts.append(difference(*sides))
            steps.append(int(step))
            means.append([side.mean() for side in sides])
        if parts:
            found = mean_difference(parts)
            low, high = found.interval(0.95)
            row = {"method": series[1], "variant": series[2], "tasks": len(parts)}
            row |= {"env steps": " ".join(f"{step:,}" for step in dict.fromkeys(steps))}
            row |= dict(zip(("score", "default"), np.mean(means, axis=0), strict=True))
            rows.append({**row, "difference": found.value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _reached(curves: ScoreCurves, rows: np.ndarray) -> float:
    """Last env step at which each of these runs has a value."""
    return float(min(max(curves.last_steps[r], curves.curves[r].carried_to) for r in rows))
