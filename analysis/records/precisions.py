"""Own runs in several precisions as one series, where that is unambiguous."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import replace

import pandas as pd

from analysis.records.load import RUN_KEY, SERIES, Records, settings_of
from analysis.records.problems import Problem

_MARK = re.compile(r"\[precision=\w+\]|,precision=\w+(?=\])")
"""The precision in the name of a variant; see `run_reader`."""


def pooled(records: Records) -> Records:
    """Take the precision out of the names of variants, where it distinguishes nothing.

    The precision is how a result is computed, not a setting of the algorithm. It stays in the names
    if a variant has runs of the same task and seed in two precisions, or if its runs also differ in
    another setting; a problem says so.

    Args:
        records: own runs, of one folder or several.
    """
    plain = _plain(records.runs)
    if (plain == records.runs["variant"]).all():
        return records
    apart: list[tuple[Hashable, ...]] = []
    problems = []
    for key, members in records.runs.assign(variant=plain).groupby(SERIES, dropna=False):
        names = sorted(records.runs.loc[members.index, "variant"].unique())
        if names == [members["variant"].iloc[0]]:
            continue  # no name has a precision
        settings = {tuple(sorted(settings_of(each))) for each in members["overrides"]}
        if len(settings) > 1 or members.duplicated(RUN_KEY).any():
            apart.append(tuple(key))
            where = str(members["directory"].iloc[0].parents[2])
            what = f"runs in several precisions, distinguished as {', '.join(names)}"
            problems.append(Problem(where, None, what, "warning"))

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        names = _plain(table)
        series = pd.MultiIndex.from_frame(table[SERIES].assign(variant=names))
        return table.assign(variant=names.mask(series.isin(apart), table["variant"]))

    return replace(
        records,
        table=renamed(records.table),
        runs=renamed(records.runs),
        problems=(*records.problems, *problems),
    )


def in_any_precision(variant: str) -> str:
    """Return the name of a variant without the precision."""
    return _MARK.sub("", variant)


def _plain(table: pd.DataFrame) -> pd.Series[str]:
    """Return the names of variants without the precision."""
    return table["variant"].map(in_any_precision).astype(table["variant"].dtype)
