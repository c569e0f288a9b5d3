"""Records of several folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.records.load import RUN_KEY, Records, load, stacked
from analysis.records.problems import Problem
from tdmpc2.common.system.errors import UserError


def read_runs(folders: Sequence[Path]) -> Records:
    """Return the records of several folders of runs.

    Of a run that two folders hold with different budgets, the longer record counts; of two
    reference scores of a task, that with more episodes.

    Raises:
        UserError: two folders hold the same run with the same budget.
    """
    if len(folders) == 1:
        return load(folders[0])
    parts, problems = _longest_only({folder: load(folder) for folder in folders})
    references = stacked([part.reference_scores for part in parts])
    references = references.sort_values("episodes", ascending=False, kind="stable")
    return Records(
        table=stacked([part.table for part in parts]),
        runs=stacked([part.runs for part in parts]),
        reference_scores=references.drop_duplicates(["task", "policy"], ignore_index=True),
        problems=(*problems, *(p for part in parts for p in part.problems)),
    )


def _longest_only(parts: Mapping[Path, Records]) -> tuple[list[Records], list[Problem]]:
    """Leave out the shorter records of runs that several folders hold, and count them."""
    every = stacked([part.runs.assign(folder=str(path)) for path, part in parts.items()])
    twice = every[every.duplicated([*RUN_KEY, "budget"])]
    if len(twice):
        raise UserError(f"two folders hold the same run, {twice['directory'].iloc[0]}")
    ascending = every.sort_values("budget")
    shorter = dict(list(ascending[ascending.duplicated(RUN_KEY, keep="last")].groupby("folder")))
    kept, problems = [], []
    for path, part in parts.items():
        left = shorter.get(str(path))
        kept.append(part if left is None else _without(part, left[RUN_KEY].fillna("")))
        if left is not None:
            count, which = (f"{len(left)} runs", "them") if len(left) > 1 else ("1 run", "it")
            what = f"{count} left out: another folder holds {which} with a larger budget"
            problems.append(Problem(str(path), None, what, "warning"))
    return kept, problems


def _without(records: Records, runs: pd.DataFrame) -> Records:
    """Return records without some runs, which have the given values of `RUN_KEY`."""
    unwanted = pd.MultiIndex.from_frame(runs)

    def rest(table: pd.DataFrame) -> pd.DataFrame:
        return table[~pd.MultiIndex.from_frame(table[RUN_KEY].fillna("")).isin(unwanted)]

    return replace(records, table=rest(records.table), runs=rest(records.runs))
