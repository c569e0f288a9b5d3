"""Headline numbers of the report: statistics of each group of tasks at a common env step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis.figures.figure_specs import Catalog
from analysis.records.load import SERIES, Records
from analysis.stats.aggregate import group_scores, improvements
from analysis.stats.coverage import Coverage, coverages
from analysis.stats.horizons import Group, own_groups
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import Series

OBSERVATIONS = {"state": "from states", "rgb": "from pixels"}
"""Suffix of a label by observation type."""
HEADLINE_STATISTICS = ("mean", "iqm", "optimality_gap")
"""Statistics with intervals."""
MEDIAN_NOTE = (
    "The median over tasks is shown without an interval: with three seeds, bootstrap intervals "
    "of the median over 104 tasks cover the true value in only 9 to 41 % of cases."
)


def headlines(
    records: Records, rule: Rule, catalog: Catalog, places: Mapping[Series, int]
) -> tuple[list[dict[str, Any]], list[Coverage]]:
    """Return a table for every group of tasks, separately for each observation type.

    Args:
        records: records from all sources.
        rule: treatment of missing and repeated evaluations.
        catalog: groups and bootstrap settings.
        places: index of each series on the page.

    Returns:
        Objects for JSON: label, observation type, number of tasks, horizon, rows by index of the
        series, probabilities of improvement, and excluded series. And the coverage of the
        intervals.
    """
    found: list[Coverage] = []
    tables: dict[str, list[dict[str, Any]]] = {}
    for obs in sorted(records.runs["obs"].unique(), reverse=True):  # states before pixels
        curves = ScoreCurves(records.select(obs=obs))
        if len(curves):
            groups = [*catalog.groups.values(), *own_groups(curves, catalog.groups)]
            tables[obs] = _overview(curves, groups, rule, catalog, places, found)
    # Number of observation types in which a label occurs; several horizons of one type count once.
    counts = Counter(name for own in tables.values() for name in {table["label"] for table in own})
    for obs, own in tables.items():
        for table in own:
            table["obs"] = obs
            if obs != "state" or counts[table["label"]] > 1:
                table["label"] += f", {OBSERVATIONS.get(obs, obs)}"
    return [table for own in tables.values() for table in own], found


def _overview(
    curves: ScoreCurves,
    groups: list[Group],
    rule: Rule,
    catalog: Catalog,
    places: Mapping[Series, int],
    found: list[Coverage],
) -> list[dict[str, Any]]:
    """Return statistics, probabilities of improvement and excluded series of every group.

    Args:
        curves: runs with the same observation type.
        groups: groups of tasks with their horizons.
        rule: treatment of missing and repeated evaluations.
        catalog: bootstrap settings.
        places: index of each series on the page.
        found: list to which the coverage of the intervals is appended.
    """
    out = []
    for group in groups:
        scores, problems = group_scores(curves, [group], rule, catalog.bootstrap)
        if scores.empty:
            continue
        measured = coverages(curves, [group], HEADLINE_STATISTICS, catalog.bootstrap)
        shown = {tuple(map(str, key)) for key in scores[SERIES].drop_duplicates().to_numpy()}
        found += [one for one in measured if one.series in shown]
        pairs, _ = improvements(curves, group, rule, catalog.bootstrap)
        rows: dict[int, dict[str, Any]] = {}
        for row in scores.to_dict("records"):
            place = places[tuple(str(row[name]) for name in SERIES)]
            bounds = (np.nan, np.nan) if row["statistic"] == "median" else (row["low"], row["high"])
            cell = rounded(100 * np.array([row["value"], *bounds]), 7)  # rounded again when shown
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
        facts["left_out"] = [f"{problem.where}: {problem.what}" for problem in problems]
        out.append({**facts, "rows": dict(sorted(rows.items())), "wins": wins})
    return out


def rounded(values: Iterable[float], digits: int = 4) -> list[Any]:
    """Round numbers for JSON to `digits` significant digits; non-finite numbers become None."""
    return [_number(float(value), digits) for value in values]


def _number(value: float, digits: int) -> float | int | None:
    """Round a number for JSON; return an integer if it is whole, and None if it is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short
