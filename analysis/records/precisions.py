"""Own runs in several precisions as one series, where that is unambiguous."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.records.load import AGENTS, RUN_KEY, SERIES, Records, settings_of
from analysis.records.problems import Problem

_TASK = [*AGENTS, "task"]
"""Columns that identify the runs of one series on one task."""
_MARK = re.compile(r"\[precision=\w+\]|,precision=\w+(?=\])")
"""The precision in the name of a variant; see `run_reader`."""


def pooled(records: Records) -> Records:
    """Take the precision out of the names of variants, where it distinguishes nothing.

    The precision is how a result is computed, not a setting of the algorithm. It stays in the names
    on tasks of which a variant has one seed in two precisions, and on all tasks if the variant's
    runs also differ in another setting; a problem says so.

    Args:
        records: own runs, of one folder or several.
    """
    plain = _plain(records.runs)
    if (plain == records.runs["variant"]).all():
        return records
    problems = []
    apart = pd.MultiIndex.from_frame(records.runs[_TASK][:0])
    for _, members in records.runs.assign(variant=plain).groupby(SERIES, dropna=False):
        if (records.runs.loc[members.index, "variant"] == members["variant"]).all():
            continue  # no name has a precision
        told_apart = _told_apart(members)
        if len(told_apart):
            names = sorted(records.runs.loc[told_apart.index, "variant"].unique())
            apart = apart.append(pd.MultiIndex.from_frame(told_apart[_TASK]))
            where = str(told_apart["directory"].iloc[0].parents[2])
            tasks = _names_if_some(told_apart["task"], members["task"])
            what = f"runs in several precisions{tasks}, distinguished as {', '.join(names)}"
            problems.append(Problem(where, None, what, "warning"))

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        names = _plain(table)
        places = pd.MultiIndex.from_frame(table[_TASK].assign(variant=names))
        return table.assign(variant=names.mask(places.isin(apart), table["variant"]))

    return replace(
        records,
        table=renamed(records.table),
        runs=renamed(records.runs),
        problems=(*records.problems, *problems),
    )


def _told_apart(members: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of one series whose precision must stay in their names."""
    if len({tuple(sorted(settings_of(each))) for each in members["overrides"]}) > 1:
        return members
    twice = pd.MultiIndex.from_frame(members.loc[members.duplicated(RUN_KEY), _TASK])
    return members[pd.MultiIndex.from_frame(members[_TASK]).isin(twice)]


def _names_if_some(tasks: pd.Series[str], every: pd.Series[str]) -> str:
    """Return the names of tasks after "on"; empty if these are all tasks."""
    some = sorted(tasks.unique())
    return f" on {', '.join(some)}" if len(some) < every.nunique() else ""


def in_any_precision(variant: str) -> str:
    """Return the name of a variant without the precision."""
    return _MARK.sub("", variant)


def in_its_precision(variant: str, overrides: Mapping[str, Any]) -> str:
    """Return the name of a run's variant with its precision, as `run_reader` has named it.

    Args:
        variant: name of the variant, with or without the precision.
        overrides: settings of the run that differ from the defaults.
    """
    plain = in_any_precision(variant)
    if "precision" not in overrides:
        return plain
    name, _, others = plain.removesuffix("]").partition("[")
    marks = [*filter(None, [others]), f"precision={overrides['precision']}"]
    return f"{name}[{','.join(marks)}]"


def _plain(table: pd.DataFrame) -> pd.Series[str]:
    """Return the names of variants without the precision."""
    return table["variant"].map(in_any_precision).astype(table["variant"].dtype)
