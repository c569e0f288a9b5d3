"""Results of recorded studies: decisions, registration, and the time that looks have saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.records.studies import PUBLISHED, RUN_COLUMNS, RUNS, RecordedClaim, RecordedStudy
from analysis.stats.estimate_texts import bounds_text
from analysis.stats.group_sequential import CONTINUE
from tdmpc2.common.system.texts import counted

BIAS_NOTE = (
    "Differences in points, variant minus base, with 95 % intervals of a single look. * stopped "
    "early: on average such estimates are too far from zero or, if equality was shown, too close "
    "to it; that of the first look is unbiased over all studies."
)
REGISTERED_BEFORE = "pre-registered"
_COLUMNS = [
    *("claim", "decision", "seeds", "difference at the last look", "unbiased: first look"),
    "registered",
]


@dataclass(frozen=True)
class StudyCosts:
    """Runs and device time of a study, beside those of all seeds for every claim.

    Attributes:
        runs: runs of the complete looks.
        fixed: runs with the seeds of the last look for every claim.
        used: core-hours and GPU-hours of the runs, by unit.
        saved: those of the runs that were not needed, at the mean of their series and task.
        unknown: runs without a recorded time.
        unknown_saved: runs that were not needed, of series and tasks without any recorded time.
    """

    runs: int
    fixed: int
    used: Mapping[str, float]
    saved: Mapping[str, float]
    unknown: int
    unknown_saved: int


def is_decided(study: RecordedStudy) -> bool:
    """Return whether every claim of a study is decided."""
    last = study.decisions.groupby("claim").last()["decision"]
    waiting = study.decisions["difference"].isna().any()
    return len(last) == len(study.claims) and not waiting and CONTINUE not in set(last)


def result_texts(study: RecordedStudy) -> pd.DataFrame:
    """Return the last result of each claim, the estimate of its first look, and its registration.

    A study that stops at a large difference has seen a large one more often than not, so the
    estimate at the end is biased; that of the first look is not, because it always takes place.

    Args:
        study: the study; claims without a complete look have no row.
    """
    rows = []
    looks = study.complete.groupby("claim")
    for claim in study.claims:
        if claim.name not in looks.groups:
            continue
        own = looks.get_group(claim.name)
        first, last = own.iloc[0], own.iloc[-1]
        early = "*" if last["decision"] != CONTINUE and last["seeds"] < study.looks[-1] else ""
        rows.append(
            (
                claim.name,
                last["decision"],
                int(last["seeds"]),
                " ".join((f"{last['difference']:+.1f}{early}", interval(last))),
                " ".join((f"{first['difference']:+.1f}", interval(first))),
                registration(study, claim, int(last["seeds"])),
            )
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def interval(row: pd.Series) -> str:
    """Return the interval of a row of `decisions.csv` as text."""
    return interval_text(row["low"], row["high"])


def interval_text(low: float, high: float) -> str:
    """Return the interval of a difference, or why there is none."""
    return bounds_text(low, high, "+.1f") or "(no score varies)"


def registration(study: RecordedStudy, claim: RecordedClaim, seeds: int) -> str:
    """Return `REGISTERED_BEFORE`, or how many of a claim's runs the study has not started.

    Args:
        study: the study.
        claim: the claim.
        seeds: seeds on each side at its last look.
    """
    if study.runs is None:
        return f"unknown: {RUNS} is missing"
    runs = study.runs[~study.runs["registered"] & study.runs["seed"].isin(study.seeds[:seeds])]
    runs = runs[runs["task"].isin(claim.tasks)]
    number = sum(int(_of_series(runs, series).sum()) for series in claim.series)
    were = "was" if number == 1 else "were"
    text = f"no: {counted(number, 'run')} {were} not started by this study"
    return text if number else REGISTERED_BEFORE


def costs_of(study: RecordedStudy) -> StudyCosts:
    """Return the costs of a study; the released curves cost nothing.

    Args:
        study: the study; without `runs.csv`, the time of all runs is unknown.
    """
    seeds: dict[tuple[tuple[str, str], str], int] = {}
    last = study.complete.groupby("claim")["seeds"].max()
    for claim in study.claims:
        for series in claim.series:
            for task in claim.tasks if series[1] != PUBLISHED else ():
                key = (series, task)
                seeds[key] = max(seeds.get(key, 0), int(last.get(claim.name, 0)))
    most = study.looks[-1]
    used: dict[str, float] = {}
    saved: dict[str, float] = {}
    unknown, unknown_saved = 0, 0
    for (series, task), number in seeds.items():
        hours = _hours(study, series, task, number)
        unknown += number - len(hours)
        unknown_saved += 0 if len(hours) else most - number
        for unit, own in hours.groupby("unit")["hours"].sum().items():
            used[str(unit)] = used.get(str(unit), 0.0) + own
            more = own / len(hours) * (most - number)
            saved[str(unit)] = saved.get(str(unit), 0.0) + more
    return StudyCosts(sum(seeds.values()), len(seeds) * most, used, saved, unknown, unknown_saved)


def _of_series(runs: pd.DataFrame, series: tuple[str, str]) -> pd.Series:
    return (runs["method"] == series[0]) & (runs["variant"] == series[1])


def _hours(study: RecordedStudy, series: tuple[str, str], task: str, seeds: int) -> pd.DataFrame:
    """Return the rows of `runs.csv` with a time, of the first seeds of a series on a task."""
    runs = pd.DataFrame(columns=RUN_COLUMNS) if study.runs is None else study.runs
    own = runs[_of_series(runs, series) & (runs["task"] == task)]
    return own[own["seed"].isin(study.seeds[:seeds]) & own["hours"].notna()]


def describe_costs(study: RecordedStudy) -> str:
    """Return the runs and the time of a study, and what it has saved if all claims are decided."""
    costs, decided = costs_of(study), is_decided(study)
    if not decided:
        runs = f"Runs of the complete looks: {costs.runs}."
    else:
        share = 100 * (1 - costs.runs / costs.fixed) if costs.fixed else 0.0
        runs = (
            f"Runs: {costs.runs} of {costs.fixed} with {study.looks[-1]} seeds for every claim "
            f"({share:.0f} % saved)."
        )
    if not costs.runs:
        return runs
    if study.runs is None:
        return f"{runs} Time: unknown, as {RUNS} is missing; launching the study again writes it."
    if not costs.used:
        return f"{runs} Time: unknown, as no run has a recorded one."
    time = f"Time: {_listed(costs.used)}"
    if decided and any(costs.saved.values()):
        how = "at the mean time of the runs of each series and task"
        time += f", about {_listed(costs.saved)} saved ({how})"
    left_out = [f"{counted(costs.unknown, 'run')} without a recorded time"] * (costs.unknown > 0)
    if decided and costs.unknown_saved:
        left_out.append(f"{counted(costs.unknown_saved, 'run')} saved by series without any")
    more = f" Not counted: {' and '.join(left_out)}." if left_out else ""
    return f"{runs} {time}.{more}"


def _listed(hours: Mapping[str, float]) -> str:
    return " and ".join(f"{_number(value)} {unit}" for unit, value in sorted(hours.items()))


def _number(hours: float) -> str:
    """Return hours with one decimal, or two digits if they are less than one."""
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def describe_study(study: RecordedStudy) -> str:
    """Return the decisions of a study, what was changed later, and its costs, in one line."""
    last = study.complete.groupby("claim", sort=False).last()
    decisions = "; ".join(
        f"{claim}: {decision} at {seeds} seeds"
        for claim, decision, seeds in zip(last.index, last["decision"], last["seeds"], strict=True)
    )
    changed = f" Its file was changed later: {', '.join(study.changed)}." if study.changed else ""
    return (
        f"Study {study.name}, registered ({study.mark}): {decisions or 'no look is complete'}."
        f"{changed} {describe_costs(study)}"
    )
