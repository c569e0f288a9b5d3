"""Room of the audit: where records are ragged, and what the rule made of it, run by run.

A finding is nothing wrong with a file (that is a problem, see `analysis/records/problems.py`) but
something that a mean over seeds cannot pass over in silence: a step recorded twice, a missing
one, a run that stops early, a seed that others of its series have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from analysis.records.load import RUN_KEY, RUNS_SOURCE, SERIES
from analysis.stats.ragged_curves import ENDED, RULES, Rule, ScoreCurves, budget_of, paper_budget
from analysis.stats.selection import Group, Selection, horizon_scores, select

AUDIT = [*RUN_KEY, "finding", "count", "detail", "treatment"]
FINDINGS = {
    "repeated_steps": "steps recorded more than once",
    "missing_steps": "steps of the evaluation grid not recorded",
    "ends_early": "last evaluation before the end of the budget",
    "other_budget": "budget other than the paper's",
    "missing_seed": "seed that the series has on other tasks",
    "diverged": "NaN or infinity in training",
    "not_ended": "run that failed, was stopped or still goes on",
}
"""What the audit finds, in the order of its table."""
_REPEATS = {"mean": "averaged", "first": "first one taken", "last": "last one taken"}
_BETWEEN = {
    "hold": "value before them held",
    "linear": "interpolated",
    "none": "left out at those steps",
}
_CARRIED = "last value carried on"

AuditRow = tuple[str, int, str, str]
"""Name in `FINDINGS`, how many, where, and what was done about it."""


def audit(curves: ScoreCurves, rule: Rule) -> pd.DataFrame:
    """Every finding, one a row, columns `AUDIT`.

    Args:
        curves: of all runs.
        rule: whose treatment is named.
    """
    rows = []
    for _, peers in curves.runs.groupby(["source", "variant", "dataset", "task"]):
        own = peers.groupby(SERIES).groups.values()
        for members in own if peers["source"].iloc[0] == RUNS_SOURCE else [peers.index]:
            grid = curves.grid(list(members))
            for row in members:
                key = curves.runs.loc[row, RUN_KEY]
                rows += [(*key, *finding) for finding in _findings(curves, row, grid, rule)]
    rows += _missing_seeds(curves.runs)
    table = pd.DataFrame(rows, columns=AUDIT)
    table["finding"] = pd.Categorical(table["finding"], list(FINDINGS))
    return table.sort_values(["finding", *RUN_KEY], ignore_index=True).astype({"finding": object})


def summary(table: pd.DataFrame) -> list[str]:
    """The audit in a few lines: how many runs show what.

    Args:
        table: from `audit`.
    """
    runs = table.groupby("finding", sort=False)[RUN_KEY].apply(lambda t: len(t.drop_duplicates()))
    return [f"{runs[name]:,} runs: {what}" for name, what in FINDINGS.items() if name in runs.index]


def _findings(curves: ScoreCurves, row: int, grid: np.ndarray, rule: Rule) -> Iterator[AuditRow]:
    """What one run's curve and state show.

    Args:
        curves: of all runs.
        row: the run.
        grid: steps at which it or its peers were evaluated.
        rule: of treatment.
    """
    run = curves.runs.loc[row]
    steps, counts = np.unique(curves.curves[row].steps, return_counts=True)
    repeated = steps[counts > 1]
    if len(repeated):
        yield "repeated_steps", len(repeated), _span(repeated), _REPEATS[rule.repeats]
    missing = np.setdiff1d(grid[grid < steps[-1]], steps)
    if len(missing):
        yield "missing_steps", len(missing), _span(missing), _BETWEEN[rule.between]
    ended, last, budget = run["state"] in ENDED, int(steps[-1]), budget_of(run["budget"])
    reached = f"{last:,}" if np.isinf(budget) else f"{last:,} of {budget:,.0f}"
    if ended and last < budget < np.inf:
        treatment = _BETWEEN["none"] if rule.between == "none" else _CARRIED
        yield "ends_early", int((grid > last).sum()), reached, treatment
    if run["state"] == "DIVERGED":
        yield "diverged", 1, f"at {reached}", _CARRIED
    if not ended:
        yield "not_ended", 1, f"{run['state']} at {reached}", "not carried beyond"
    full = paper_budget(run["task"], run["obs"])
    in_env_steps = run["source"] == RUNS_SOURCE and run["budget_unit"] == "env_steps"
    if in_env_steps and budget != full and np.isfinite([budget, full]).all():
        detail = f"{budget:,.0f} instead of {full:,.0f} env steps"
        yield "other_budget", 1, detail, "carried to the end of its own budget only"


def _missing_seeds(runs: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """A finding for each seed that a series has on some task but not on another."""
    for series, members in runs.groupby(SERIES):
        seeds = set(members["seed"])
        for task, own in members.groupby("task"):
            for seed in sorted(seeds - set(own["seed"])):
                key = (*series, task, seed)
                yield (*key, "missing_seed", 1, "no curve", "mean over the others")


def _span(steps: np.ndarray) -> str:
    """First and last of some steps."""
    return f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def sensitivity(curves: ScoreCurves, groups: Sequence[Group]) -> pd.DataFrame:
    """Mean scores at the horizon under every rule.

    Args:
        curves: of all runs.
        groups: of tasks; a series that lacks a task of a group is left out there.

    Returns:
        columns `SERIES`, group, one for each rule (scores in per cent; NaN where the rule leaves
        a task without a value), and `spread`, the largest difference between two rules.
    """
    rows = []
    for group in groups:
        for series, chosen in select(curves, group.tasks, group.name, []):
            means = [_task_mean(curves, chosen, group, rule) for rule in RULES.values()]
            known = [mean for mean in means if not np.isnan(mean)]
            spread = max(known) - min(known) if known else float("nan")
            rows.append((*series, group.name, *means, spread))
    return pd.DataFrame(rows, columns=[*SERIES, "group", *RULES, "spread"])


def _task_mean(curves: ScoreCurves, chosen: Selection, group: Group, rule: Rule) -> float:
    """Mean over tasks of the mean over the seeds there are, in per cent."""
    values = horizon_scores(curves, chosen, group, rule)[0][:, 0]
    there = ~np.isnan(values)
    counts = np.bincount(chosen.strata, there)
    if not counts.all():
        return float("nan")
    sums = np.bincount(chosen.strata, np.where(there, values, 0.0))
    return float(100 * (sums / counts).mean())
