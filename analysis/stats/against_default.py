"""Comparison of variants with the default of their method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.coverage import coverage_of_differences, last_scores
from analysis.stats.equivalence import difference, if_spread, mean_difference
from analysis.stats.horizons import side_of, without_score
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from tdmpc2.common.system.texts import table_span

AGAINST_DEFAULT = [
    *("method", "variant", "tasks", "seeds", "env steps", "score", "default"),
    *("difference", "low", "high", "coverage", "left out"),
]


def against_default(curves: ScoreCurves, rule: Rule) -> pd.DataFrame:
    """Compare every variant with the default of its method, on the tasks that both have.

    Args:
        curves: all runs, of which only run directories are used.
        rule: treatment of missing and repeated evaluations.

    Returns:
        Columns `AGAINST_DEFAULT`: method, variant, number of tasks, seeds of both sides, the last
        env steps that both have, both means, the mean difference in points with its 95 % interval
        and the measured coverage of that, and the tasks and seeds that are left out.
    """
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    rows: list[dict[str, Any]] = []
    for series, variant in runs[runs["variant"] != "default"].groupby(SERIES):
        is_default = (runs["variant"] == "default") & (runs["method"] == series[1])
        differences, steps, means = [], [], []
        left_out: list[str] = []
        pools, sizes = [], []
        for task, ours in variant.groupby("task"):
            theirs = runs.index[is_default & (runs["task"] == task)].to_numpy()
            if not len(theirs):
                continue
            both = [ours.index.to_numpy(), theirs]
            if reason := without_score(runs.loc[np.concatenate(both)]):
                left_out.append(f"{task}: {reason}")
                continue
            recorded = curves.last_steps[np.concatenate(both)].max()
            sides = [side_of(curves, rows, recorded) for rows in both]
            left_out += [
                f"{task}, {name}: {seed}"
                for name, side in zip((series[2], "default"), sides, strict=True)
                for seed in side.left_out
            ]
            step = int(min(side.last for side in sides))
            if step <= 0:
                left_out.append(f"{task}: no evaluation after step 0 on both sides")
                continue
            at = np.array([step])
            scores = [100 * curves.values(s.rows, at, rule, normalized=True)[:, 0] for s in sides]
            differences.append(difference(scores[0], scores[1]))
            mine, other = (last_scores(curves, side.rows, step) for side in sides)
            pools.append((mine, other))
            sizes.append((len(sides[0].rows), len(sides[1].rows)))
            steps.append(step)
            means.append([own.mean() for own in scores])
        row = {"method": series[1], "variant": series[2], "tasks": len(differences)}
        if differences:
            gap = if_spread(mean_difference(differences))
            low, high = gap.interval(0.95)
            row |= {"seeds": _seeds(sizes)}
            row |= {"env steps": " ".join(f"{step:,}" for step in dict.fromkeys(steps))}
            row |= dict(zip(("score", "default"), np.mean(means, axis=0), strict=True))
            row |= {"difference": gap.value, "low": low, "high": high}
            row |= {"coverage": coverage_of_differences(pools, sizes)}
        if differences or left_out:
            rows.append({**row, "left out": "; ".join(left_out)})
    return pd.DataFrame(rows, columns=AGAINST_DEFAULT)


def _seeds(sizes: Sequence[tuple[int, int]]) -> str:
    """Return the seeds per task of variant and default, such as `2-3/5`."""
    return "/".join(map(table_span, zip(*sizes, strict=True)))
