"""Runs of several folders as one set of records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from analysis.records.load import (
    Found,
    Records,
    distinguish,
    load,
    read_references,
    read_runs,
    run_key,
    to_records,
    without_duplicates,
)
from analysis.records.precisions import pooled
from analysis.records.problems import Problem
from analysis.records.run_reader import Run
from tdmpc2.common.system.errors import UserError


def load_folders(folders: Sequence[Path]) -> Records:
    """Return the records of one or several folders of runs.

    Runs are distinguished by their settings and datasets as if they were in one folder (`load`);
    those that differ in the precision only are one series (`precisions.pooled`). Of a run that two
    folders hold, the longer record counts: the one evaluated further, or completed, or with the
    larger budget. Of two reference scores of a task, that with more episodes counts.

    Args:
        folders: at least one folder of runs.

    Raises:
        UserError: two folders hold the same run, and neither record is the longer one.
    """
    if len(folders) == 1:
        return pooled(load(folders[0]))
    problems: list[Problem] = []
    parts = [read_runs(folder, problems) for folder in folders]
    distinguish([run for part in parts for run, _ in part], problems)
    references = [row for folder in folders for row in read_references(folder, problems)]
    found = _longest_only([_unique(part, problems) for part in parts], problems)
    return pooled(to_records(found, _with_most_episodes(references), problems))


def _unique(part: Sequence[Found], problems: list[Problem]) -> list[Found]:
    """Leave out the runs that one folder holds several times."""
    kept = {id(run) for run in without_duplicates([run for run, _ in part], problems)}
    return [(run, points) for run, points in part if id(run) in kept]


def _longest_only(parts: Sequence[Sequence[Found]], problems: list[Problem]) -> list[Found]:
    """Leave out the shorter records of runs that several folders hold, and name them."""
    longest: dict[tuple[Any, ...], Found] = {}
    for found in chain.from_iterable(parts):
        other = longest.setdefault(run_key(found[0]), found)
        if other is not found and _length(other) == _length(found):
            raise UserError(f"two folders hold the same run, {found[0]['directory']}")
        longest[run_key(found[0])] = max(other, found, key=_length)
    kept = {id(run) for run, _ in longest.values()}
    for part in parts:
        shorter = [run for run, _ in part if id(run) not in kept]
        if shorter:
            problems.append(_left_out(shorter))
    return [(run, points) for part in parts for run, points in part if id(run) in kept]


def _length(found: Found) -> tuple[float, bool, float]:
    """Return last evaluated step, whether the run is completed, and its budget."""
    run, points = found
    last = points.steps.max(initial=-1)
    return last, run["state"] == "COMPLETED", -1 if run["budget"] is None else run["budget"]


def _left_out(runs: Sequence[Run]) -> Problem:
    """Return the problem that names runs of one folder of which another holds longer records."""
    where, number = os.path.commonpath([run["directory"] for run in runs]), len(runs)
    what = "another folder holds a longer record of this run; left out"
    if number > 1:
        what = f"{number} runs left out, of which another folder holds longer records"
    return Problem(where, None, what, "warning")


def _with_most_episodes(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return one row for each task and policy: the first of those with the most episodes."""
    best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        other = best.setdefault(row[:2], row)
        best[row[:2]] = max(other, row, key=lambda one: one[-1])
    return list(best.values())
