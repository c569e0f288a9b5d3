"""Runs of several folders as one set of records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.records.load import RUN_KEY, Records, load, stacked
from analysis.records.precisions import pooled
from analysis.records.problems import Problem
from tdmpc2.common.system.errors import UserError


def load_folders(folders: Sequence[Path]) -> Records:
    """Return the records of one or several folders of runs.

    Runs that differ in the precision only are one series (`precisions.pooled`).
    Of a run that two folders hold with different budgets, the longer record counts; of two
    reference scores of a task, that with more episodes.

    Args:
        folders: at least one folder of runs.

    Raises:
        UserError: two folders hold the same run with the same budget.
    """
    if len(folders) == 1:
        return pooled(load(folders[0]))
    parts, problems = _longest_only([load(folder) for folder in folders])
    references = stacked([part.reference_scores for part in parts])
    references = references.sort_values("episodes", ascending=False, kind="stable")
    records = Records(
        table=stacked([part.table for part in parts]),
        runs=stacked([part.runs for part in parts]),
        reference_scores=references.drop_duplicates(["task", "policy"], ignore_index=True),
        problems=(*problems, *(p for part in parts for p in part.problems)),
    )
    return pooled(records)


def _longest_only(parts: Sequence[Records]) -> tuple[list[Records], list[Problem]]:
    """Leave out the shorter records of runs that several folders hold, and name them."""
    every = stacked([part.runs.assign(part=place) for place, part in enumerate(parts)])
    twice = every[every.duplicated([*RUN_KEY, "budget"])]
    if len(twice):
        raise UserError(f"two folders hold the same run, {twice['directory'].iloc[0]}")
    ascending = every.sort_values("budget")
    shorter = ascending[ascending.duplicated(RUN_KEY, keep="last")]
    left = {place: rows[RUN_KEY].fillna("") for place, rows in shorter.groupby("part")}
    kept = [_without(part, left[n]) if n in left else part for n, part in enumerate(parts)]
    return kept, [_left_out(rows) for _, rows in shorter.groupby("part")]


def _left_out(runs: pd.DataFrame) -> Problem:
    """Return the problem that names runs of one folder that another holds with more steps."""
    directories = sorted(map(str, runs["directory"].unique()))
    where, number = os.path.commonpath(directories), len(directories)
    what = "another folder holds this run with a larger budget; left out"
    if number > 1:
        what = f"{number} runs left out, which another folder holds with a larger budget"
    return Problem(where, None, what, "warning")


def _without(records: Records, runs: pd.DataFrame) -> Records:
    """Return records without some runs, which have the given values of `RUN_KEY`."""
    unwanted = pd.MultiIndex.from_frame(runs)

    def rest(table: pd.DataFrame) -> pd.DataFrame:
        return table[~pd.MultiIndex.from_frame(table[RUN_KEY].fillna("")).isin(unwanted)]

    return replace(records, table=rest(records.table), runs=rest(records.runs))
