"""Comparison of variants with the default of their method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.equivalence import difference, mean_difference
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule


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
            differences.append(difference(sides[0], sides[1]))
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
