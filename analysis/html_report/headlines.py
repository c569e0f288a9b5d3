"""The headline numbers of the report: groups of tasks, the step they are read at, statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.figures.figure_specs import Catalog
from analysis.records.load import RUNS_SOURCE, SERIES, Records
from analysis.stats.aggregate import group_scores, improvements
from analysis.stats.ragged_curves import Rule, ScoreCurves
from analysis.stats.selection import NEAR, Group, Series

OBSERVATIONS = {"state": "from states", "rgb": "from pixels"}
"""What a label says of what the agents see."""
MEDIAN_NOTE = (
    "The median over tasks has no interval: with three seeds, bootstrap intervals of the median "
    "over 104 tasks cover it in 9 to 41 % of cases only."
)


def headlines(
    records: Records, rule: Rule, catalog: Catalog, places: Mapping[Series, int]
) -> list[dict[str, Any]]:
    """A table for every group of tasks and kind of observation; the two are never mixed.

    Args:
        records: from all sources.
        rule: what counts where a step was not recorded.
        catalog: groups and bootstrap.
        places: of the series on the page.

    Returns:
        objects for JSON: label, number of tasks, horizon, rows by place of the series,
        probabilities of improvement, and what is left out.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    for obs in sorted(records.runs["obs"].unique(), reverse=True):  # states before pixels
        curves = ScoreCurves(records.select(obs=obs))
        if len(curves):
            groups = _groups(curves, catalog)
            tables[obs] = _overview(curves, groups, rule, catalog, places)
    # In how many kinds of observation a label occurs; two horizons of one kind share theirs.
    counts = Counter(name for own in tables.values() for name in {table["label"] for table in own})
    for obs, own in tables.items():
        for table in own:
            if obs != "state" or counts[table["label"]] > 1:
                table["label"] += f", {OBSERVATIONS.get(obs, obs)}"
    return [table for own in tables.values() for table in own]


def _groups(curves: ScoreCurves, catalog: Catalog) -> list[Group]:
    """The catalog's groups, and what was run of each domain, at the steps that it allows."""
    groups = list(catalog.groups.values())
    runs = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    for domain, own in runs.groupby("domain"):
        tasks = tuple(sorted(own["task"].unique()))
        for horizon in own_horizons(curves, tasks):
            one = Group(f"ours_{domain}_{horizon}", f"{domain}, tasks run here", tasks, horizon)
            steps = [one.steps(task) for task in tasks]
            if all(
                set(tasks) != set(group.tasks) or steps != [group.steps(task) for task in tasks]
                for group in catalog.groups.values()
            ):
                groups.append(one)
    return groups


def own_horizons(curves: ScoreCurves, tasks: Sequence[str]) -> list[int]:
    """Steps at which runs made here can be compared, with each other and with other sources.

    The first is the shortest budget that a method of ours has finished; where the others were
    evaluated no later than that, their last such step. Where they begin later, it is their first
    step too, if one of ours got so far: nothing is compared before it was measured.

    Args:
        curves: of one kind of observation.
        tasks: that were run here.

    Returns:
        none, one or two steps, ascending.
    """
    ours, theirs = [], set()
    among = curves.runs[curves.runs["task"].isin(tasks)]
    for series, own in among.groupby(SERIES):
        if set(own["task"]) != set(tasks):
            continue
        grids = [curves.grid(rows.index.to_numpy()) for _, rows in own.groupby("task")]
        if series[0] == RUNS_SOURCE:
            ours.append((min(int(grid[-1]) for grid in grids), own["budget"].min()))
        else:
            theirs |= set.intersection(
                *({int(step) for step in grid if step > 0} for grid in grids)
            )
    finished = [last for last, budget in ours if last >= (1 - NEAR) * budget]
    lasts = [last for last, _ in ours if last > 0]
    if not lasts:
        return []
    horizon = min(finished, default=max(lasts))
    earlier = [step for step in theirs if step <= horizon]
    if earlier:
        return [max(earlier)]
    later = [step for step in theirs if step <= max(lasts)]
    return [horizon, *([min(later)] if later else [])]


def _overview(
    curves: ScoreCurves,
    groups: list[Group],
    rule: Rule,
    catalog: Catalog,
    places: Mapping[Series, int],
) -> list[dict[str, Any]]:
    """Statistics of every group, how likely each series beats the others, and what is left out."""
    out = []
    for group in groups:
        scores, met = group_scores(curves, [group], rule, catalog.bootstrap)
        if scores.empty:
            continue
        pairs, _ = improvements(curves, group, rule, catalog.bootstrap)
        rows: dict[int, dict[str, Any]] = {}
        for row in scores.to_dict("records"):
            place = places[tuple(str(row[name]) for name in SERIES)]
            bounds = (np.nan, np.nan) if row["statistic"] == "median" else (row["low"], row["high"])
            cell = rounded(100 * np.array([row["value"], *bounds]))
            rows.setdefault(place, {"runs": row["num_runs"], "seeds": row["seeds"]})
            rows[place][row["statistic"]] = cell
        wins = [
            [
                places[tuple(str(pair[f"x_{name}"]) for name in SERIES)],
                places[tuple(str(pair[f"y_{name}"]) for name in SERIES)],
                *rounded(100 * np.array([pair["value"], pair["low"], pair["high"]])),
            ]
            for pair in pairs.to_dict("records")
        ]
        horizon = "each task's budget" if group.horizon is None else f"{group.horizon:,} env steps"
        facts = {"label": group.label, "tasks": len(group.tasks), "horizon": horizon}
        facts["left_out"] = [f"{problem.where}: {problem.what}" for problem in met]
        out.append({**facts, "rows": dict(sorted(rows.items())), "wins": wins})
    return out


def rounded(values: Iterable[float], digits: int = 4) -> list[Any]:
    """Numbers for JSON: significant digits, whole ones without a point, None for what is none."""
    return [_number(float(value), digits) for value in values]


def _number(value: float, digits: int) -> float | int | None:
    """A number for JSON."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short
