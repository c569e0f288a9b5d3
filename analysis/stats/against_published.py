"""Comparison of our runs with the published curves: tasks and domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import SERIES
from analysis.records.sources import PUBLISHED
from analysis.stats.common_evaluations import CommonScores, common_scores
from analysis.stats.coverage import TaskPair, coverage_of_differences, last_scores
from analysis.stats.equivalence import (
    LEVEL,
    WORST_FIRST,
    Difference,
    difference,
    if_spread,
    mean_difference,
)
from analysis.stats.gate import JUDGED, judge, outcome, verdict_of
from analysis.stats.intervals import ROUNDING
from analysis.stats.least_variance import TaskLeast, hidden_failure_rate
from analysis.stats.margins import (
    NOT_JUDGED,
    OPEN,
    domain_margin,
    level_for_loss,
    smallest_margin,
)
from analysis.stats.multiplicity import discovery_level, false_discovery
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.seed_forecast import forecast
from analysis.stats.task_variances import TaskVariances
from tdmpc2.envs.tasks import TASKS

TASK_COLUMNS = [
    *(*SERIES, "obs", "domain", "task", "env_step", "evaluations", "budget_share"),
    *("ours", "theirs", "num_ours", "num_theirs", "coverage"),
]
KIND = ["method", "task", "obs"]
"""Columns in which our runs and published curves must agree."""
FORECAST = ["seeds_needed_low", "seeds_needed", "forecast", "forecast_probability"]


@dataclass(frozen=True)
class Comparison:
    """Comparison of our runs with the published curves, task by task.

    Attributes:
        tasks: one row per series and task, columns `TASK_COLUMNS`, `JUDGED`, `FORECAST`, `remark`.
        scores: the compared scores of each row.
        least: smallest variances of our and the published scores of each row.
        pools: last scores of each row's compared runs, ours and published; empty without a score.
        left_out: every run that is not compared, with the reason.
    """

    tasks: pd.DataFrame
    scores: tuple[CommonScores, ...]
    least: tuple[TaskLeast, ...]
    pools: tuple[TaskPair, ...]
    left_out: tuple[str, ...]

    def coverage(self, rows: Sequence[int]) -> float:
        """Return the measured coverage of the interval of the mean over rows; NaN without one."""
        counts = self.tasks.loc[list(rows), ["num_ours", "num_theirs"]].to_numpy(int).tolist()
        pools = [self.pools[row] for row in rows]
        return coverage_of_differences(pools, counts, [self.least[row] for row in rows])


def compare_tasks(curves: ScoreCurves, rule: Rule, variant: str, margin: float) -> Comparison:
    """Compare every task of our runs that has published curves.

    Scores are means over the last common evaluations (`common_evaluations.py`). Flags are corrected
    for the number of tasks (Benjamini–Hochberg).

    Args:
        curves: our runs and the published curves.
        rule: treatment of missing and repeated evaluations.
        variant: variant of our runs.
        margin: equivalence margin, in points.
    """
    runs = curves.runs
    theirs = runs["source"] == PUBLISHED
    named = runs["variant"].str.split("[").str[0] == variant
    left_out = _other_variants(runs[~theirs & ~named], variant)
    rows: list[dict[str, Any]] = []
    scores: list[CommonScores] = []
    variances = TaskVariances(curves)
    used: list[TaskLeast] = []
    pools: list[TaskPair] = []
    for key, ours in runs[~theirs & named].groupby([*SERIES, "obs", "domain", "task"]):
        row = dict(zip([*SERIES, "obs", "domain", "task"], key, strict=True))
        same = theirs & (runs[KIND] == ours[KIND].iloc[0]).all(axis=1)
        if not same.any():
            left_out.append(f"{_named(row)}: no published curve of this method and task")
            continue
        members, others = ours.index.to_numpy(), np.flatnonzero(same.to_numpy())
        common = common_scores(curves, members, others, rule)
        left_out += [f"{_named(row)}: {reason}" for reason in common.left_out]
        own = variances.of(common, others)
        rows.append({**row, **_compare(common, curves, members, others, margin, own)})
        scores.append(common)
        used.append(own)
        pools.append((_pool(curves, common.rows, common), _pool(curves, others, common)))
    columns = [*TASK_COLUMNS, *JUDGED, *FORECAST, "remark"]
    table = pd.DataFrame(rows, columns=columns).astype(
        {"seeds_needed_low": "Int64", "seeds_needed": "Int64", "forecast": object, "error": float}
    )
    table["adjusted_p"] = false_discovery(table["p_value"].to_numpy(float))
    table["verdict"] = [verdict_of(row, row["adjusted_p"]) for row in table.to_dict("records")]
    _add_forecasts(table, scores, used)
    found = Comparison(table, tuple(scores), tuple(used), tuple(pools), tuple(left_out))
    table["coverage"] = [found.coverage([row]) for row in table.index]
    return found


def compare_domains(comparison: Comparison, margin: float | None) -> pd.DataFrame:
    """Compare the means over the tasks of each domain, and list that over all tasks.

    Args:
        comparison: result of `compare_tasks`.
        margin: equivalence margin, in points; None for the default of each method.

    Returns:
        Columns `SERIES`, domain, num_tasks (of the domain), compared, budget_share, ours, theirs,
        coverage (measured, of the interval), `JUDGED`, remark, and the number of tasks with each
        verdict. The row of all tasks is listed without a verdict, because its domains have one
        each.
    """
    rows = []
    for series, members in comparison.tasks.groupby([*SERIES, "obs"]):
        domains = [*members.groupby("domain")]
        rows += [_domain(comparison, series, str(name), own, margin) for name, own in domains]
        if len(domains) > 1:
            whole = _domain(comparison, series, "all", members, margin)
            whole |= {"verdict": NOT_JUDGED, "decides": False, "remark": "sum of the domains"}
            rows.append(whole)
    columns = [
        *SERIES,
        "domain",
        "num_tasks",
        "compared",
        "budget_share",
        "ours",
        "theirs",
        "coverage",
    ]
    table = pd.DataFrame(rows, columns=[*columns, *JUDGED, "remark", *WORST_FIRST])
    return judge([table])[0]


def _domain(
    comparison: Comparison, key: Sequence[Any], name: str, own: pd.DataFrame, wanted: float | None
) -> dict[str, Any]:
    """Return the row of a domain, or of all tasks of a series, before its verdict."""
    *series, obs = key
    known = own.dropna(subset="difference")
    spread = [row for row in known.index if len(comparison.scores[row].theirs) > 1]
    theirs = [comparison.scores[row].theirs for row in spread]
    counts = np.array([len(scores) for scores in theirs])
    variances = np.array(
        [
            max(np.var(scores, ddof=1), float(comparison.least[row][1].of(scores)))
            for row, scores in zip(spread, theirs, strict=True)
        ]
    )
    smallest = float(smallest_margin(variances, counts)) if spread else float("nan")
    margin, settled = domain_margin(str(series[1]), smallest, wanted)
    columns = known[["difference", "error", "freedom"]].to_numpy(float)
    parts = [Difference(*numbers) for numbers in columns]
    row = dict(zip(SERIES, series, strict=True)) | {"domain": name}
    row |= {"num_tasks": _domain_size(name, str(obs), own), "compared": len(known)}
    row |= {column: known[column].mean() for column in ("ours", "theirs", "budget_share")}
    row |= outcome(mean_difference(parts) if parts else None, margin)
    row |= {"coverage": comparison.coverage(known.index.tolist())}
    row |= {"complete": bool(known["complete"].all()), "decides": settled or not spread}
    num_ours = known.loc[spread, "num_ours"].to_numpy()
    row["need"] = float(level_for_loss(variances, counts, num_ours)) if spread else np.nan
    if not row["decides"]:
        seeds = " or ".join(map(str, sorted(set(counts))))
        row["remark"] = f"cannot be settled with {seeds} published seeds (needs ±{smallest:.1f})"
    return row | {name: (own["verdict"] == name).sum() for name in WORST_FIRST}


def _pool(curves: ScoreCurves, rows: np.ndarray, common: CommonScores) -> tuple[float, ...]:
    """Return the last scores of a task's runs in the range of the common evaluations."""
    steps = common.env_steps
    return last_scores(curves, rows, steps[-1], since=steps[0]) if len(steps) else ()


def _domain_size(name: str, obs: str, own: pd.DataFrame) -> int:
    """Return the number of tasks of a domain, or of all domains in the table, in the paper."""
    if obs != "state":
        return len(own)
    domains = set(own["domain"]) if name == "all" else {name}
    size = sum(task.domain in domains and "all104" in task.tags for task in TASKS.values())
    return max(size, len(own))


def _compare(
    common: CommonScores,
    curves: ScoreCurves,
    ours: np.ndarray,
    theirs: np.ndarray,
    margin: float,
    rules: TaskLeast,
) -> dict[str, Any]:
    """Return the row of one task, before its verdict."""
    row: dict[str, Any] = {"num_ours": len(ours), "num_theirs": len(theirs)}
    row |= {"evaluations": len(common.env_steps), "budget_share": common.budget_share}
    row |= {"complete": common.complete, "decides": True, "remark": "; ".join(common.left_out)}
    if not len(common.env_steps):
        return row | {"env_step": int(curves.last_steps[ours].min())} | outcome(None, margin)
    mine, other = common.ours, common.theirs
    gap = difference(mine, other, _smallest(rules, common))
    remarks = [*common.left_out, *common.carried]
    if len(mine) == 1:
        remarks.append("a single seed has no interval")
    elif gap.error <= ROUNDING:
        gap = if_spread(gap)
        remarks.append("no task of this kind shows a spread over seeds")
    remarks += _agreement(mine, "seeds") or _agreement(other, "published seeds")
    row |= {"env_step": int(common.env_steps[-1]), "num_ours": len(mine)}
    row |= {"ours": mine.mean(), "theirs": other.mean(), "remark": "; ".join(remarks)}
    return row | outcome(gap, margin)


def _smallest(rules: TaskLeast, common: CommonScores) -> tuple[float, float]:
    """Return the smallest variances of both sides of a task, in points²."""
    return float(rules[0].of(common.ours)), float(rules[1].of(common.theirs))


def _agreement(scores: np.ndarray, name: str) -> list[str]:
    """Return which failure rate seeds that agree could hide; nothing if they do not agree."""
    count = len(scores)
    if count < 2 or np.ptp(scores) > ROUNDING:
        return []
    rate = hidden_failure_rate(count)
    return [
        f"{count} of {count} {name} agree: a {100 * rate:.0f} % failure rate would look like this "
        "in half of all cases"
    ]


def _add_forecasts(
    table: pd.DataFrame, scores: Sequence[CommonScores], rules: Sequence[TaskLeast]
) -> None:
    """Fill the columns `FORECAST` of the open rows; the verdicts of other tasks count as final."""
    p_values = table["p_value"].to_numpy(float)
    for place in np.flatnonzero((table["verdict"] == OPEN) & np.isfinite(table["error"])):
        margin = float(table["margin"].iloc[place])
        level = discovery_level(p_values, int(place), LEVEL)
        least = _smallest(rules[place], scores[place])
        found = forecast(scores[place].ours, scores[place].theirs, margin, least, level)
        if found is not None:
            table.loc[place, FORECAST] = [
                *(found.low, found.high, found.outcome, found.probability)
            ]


def _named(row: dict[str, Any]) -> str:
    """Return series and task of a row as text."""
    parts = [row[name] for name in ("source", "method", "variant", "model_size", "task")]
    return "/".join(str(part) for part in parts if part)


def _other_variants(runs: pd.DataFrame, variant: str) -> list[str]:
    """Return a line for each series of another variant."""
    lines = []
    for (source, method, own), members in runs.groupby(["source", "method", "variant"]):
        count, tasks = len(members), members["task"].nunique()
        what = f"{count} run{'s' * (count > 1)} on {tasks} task{'s' * (tasks > 1)}"
        name = str(own).split("[")[0]
        lines.append(f"{source}/{method}/{own}: {what}: not variant={variant} (variant={name})")
    return lines
