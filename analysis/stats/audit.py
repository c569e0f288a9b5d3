"""Audit of incomplete records: what is missing or repeated in each run, and its treatment.

A finding is not a damaged file (that is a problem, see `analysis/records/problems.py`), but an
irregularity that affects a mean over seeds: a repeated or missing step, a run that stops early, or
a seed that the series has only on other tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.evaluations import ENV_STEPS
from analysis.records.load import AGENTS, SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.horizons import Group
from analysis.stats.ragged_curves import ENDED, ScoreCurves, budget_of, variant_budget
from analysis.stats.rules import RULES, Rule
from analysis.stats.selection import Selection, horizon_scores, select
from tdmpc2.common.system.texts import counted

_KEY = [*SERIES, "task", "seed"]
AUDIT = [*_KEY, "finding", "count", "detail", "treatment"]
FINDINGS = {
    "repeated_steps": "steps recorded more than once",
    "missing_steps": "steps of the evaluation grid not recorded",
    "ends_early": "last evaluation before the end of the budget",
    "other_budget": "budget other than the paper's",
    "missing_seed": "seed that the series has only on other tasks",
    "diverged": "NaN or infinity during training",
    "not_ended": "failed, stopped or still running",
}
"""Descriptions of the findings, in the order of the table."""
_REPEATS = {"mean": "averaged", "first": "first value used", "last": "last value used"}
_BETWEEN = {
    "hold": "previous value held",
    "linear": "interpolated",
    "none": "excluded at those steps",
}
_CARRIED, _NOT_CARRIED = "last value carried forward", "not carried forward"

AuditRow = tuple[str, int, str, str]
"""Key of `FINDINGS`, count, location, and treatment."""


def audit(curves: ScoreCurves, rule: Rule) -> pd.DataFrame:
    """Return every finding, one per row, columns `AUDIT`.

    The `task` of a multi-task run is `<task set>: <task>`, or the task set for a finding that all
    of its tasks share.

    Args:
        curves: all runs.
        rule: rule whose treatment is reported.
    """
    found: list[tuple[int, AuditRow]] = []
    runs = curves.runs
    trained_on = runs["task_set"].where(runs["task_set"] != "", runs["task"])
    for _, peers in runs.groupby(["source", "variant", "dataset", trained_on]):
        own = peers.groupby(SERIES).groups.values()
        for members in own if peers["source"].iloc[0] == RUNS_SOURCE else [peers.index]:
            grid = curves.grid(list(members))
            found += [(row, one) for row in members for one in _findings(curves, row, grid, rule)]
    rows = [*_named(runs, found), *_missing_seeds(runs)]
    table = pd.DataFrame(rows, columns=AUDIT)
    table["finding"] = pd.Categorical(table["finding"], list(FINDINGS))
    return table.sort_values(["finding", *_KEY], ignore_index=True).astype({"finding": object})


def audit_all(curves: Sequence[ScoreCurves], rule: Rule) -> pd.DataFrame:
    """Return the findings of several groups of runs, one group after the other; see `audit`."""
    tables = [audit(own, rule) for own in curves]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _named(runs: pd.DataFrame, found: Sequence[tuple[int, AuditRow]]) -> Iterator[tuple[Any, ...]]:
    """Yield each finding with the key of its run; one that all tasks of a run share only once.

    Args:
        runs: all runs.
        found: row number in `runs`, and finding.
    """
    rows_of: dict[tuple[Any, ...], list[int]] = {}
    for row, finding in found:
        run = runs.loc[row]
        key = (*run[SERIES], run["task_set"] or run["task"], run["seed"], *finding)
        rows_of.setdefault(key, []).append(row)
    num_tasks = runs["tasks"].map(len).to_numpy()
    for key, rows in rows_of.items():
        if len(rows) == num_tasks[rows[0]]:
            yield key
            continue
        (*series, name), rest = key[: len(AGENTS)], key[len(AGENTS) :]
        yield from ((*series, f"{name}: {task}", *rest) for task in runs.loc[rows, "task"])


def summary(table: pd.DataFrame) -> list[str]:
    """Return the number of runs with each finding, one line each.

    Args:
        table: result of `audit`.
    """
    named = table.assign(task=[str(task).partition(": ")[0] for task in table["task"]])
    runs = named.groupby("finding", sort=False)[_KEY].apply(lambda t: len(t.drop_duplicates()))
    return [
        f"{counted(runs[name], 'run')}: {what}"
        for name, what in FINDINGS.items()
        if name in runs.index
    ]


def _findings(curves: ScoreCurves, row: int, grid: np.ndarray, rule: Rule) -> Iterator[AuditRow]:
    """Yield the findings of one run.

    Args:
        curves: all runs.
        row: row number of the run.
        grid: steps at which the run or its peers were evaluated.
        rule: rule whose treatment is reported.
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
    reached += "" if curves.step_unit == ENV_STEPS else " updates"
    kept = _CARRIED if curves.curves[row].carried_to > -np.inf else _NOT_CARRIED
    carried = _BETWEEN["none"] if rule.between == "none" else kept
    if ended and last < budget < np.inf:
        yield "ends_early", int((grid > last).sum()), reached, carried
    if run["state"] == "DIVERGED":
        yield "diverged", 1, f"at {reached}", carried
    if not ended:
        yield "not_ended", 1, f"{run['state']} at {reached}", _NOT_CARRIED
    full = variant_budget(run["task"], run["obs"], run["variant"])
    in_env_steps = run["source"] == RUNS_SOURCE and run["budget_unit"] == "env_steps"
    if in_env_steps and budget != full and np.isfinite([budget, full]).all():
        detail = f"{budget:,.0f} instead of {full:,.0f} env steps"
        to_its_budget = carried == _CARRIED and curves.curves[row].carried_to < np.inf
        treatment = f"{_CARRIED} to its own budget only" if to_its_budget else carried
        yield "other_budget", 1, detail, treatment


def _missing_seeds(runs: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Yield a finding for each seed that a series has on some tasks but not on another."""
    for (*series, task_set), members in runs.groupby(AGENTS):
        seeds = set(members["seed"])
        for task, own in members.groupby("task"):
            name = f"{task_set}: {task}" if task_set else task
            for seed in sorted(seeds - set(own["seed"])):
                key = (*series, name, seed)
                yield (*key, "missing_seed", 1, "no curve", "mean over the other seeds")


def _span(steps: np.ndarray) -> str:
    """Return the first and last of some steps as text."""
    return f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def sensitivity(curves: ScoreCurves, groups: Sequence[Group]) -> pd.DataFrame:
    """Return mean scores at the horizon under every rule.

    Args:
        curves: all runs.
        groups: groups of tasks; a series that lacks a task of a group is excluded from it.

    Returns:
        Columns `SERIES`, group, one for each rule (scores in percent; NaN if the rule leaves a task
        without a value), and `spread`, the largest difference between two rules.
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
    """Return the mean over tasks of the mean over available seeds, in percent."""
    values = horizon_scores(curves, chosen, group, rule)[0][:, 0]
    present = ~np.isnan(values)
    counts = np.bincount(chosen.strata, present)
    if not counts.all():
        return float("nan")
    sums = np.bincount(chosen.strata, np.where(present, values, 0.0))
    return float(100 * (sums / counts).mean())
