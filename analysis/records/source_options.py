"""Room of the arguments that say where records come from, the same for every command here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from analysis.records.load import PUBLISHED, READERS, Records, load, load_curves, merge
from analysis.records.problems import Problem
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir, default_runs_dir

SHOWN_PROBLEMS = 20
SOURCE_OPTIONS: dict[str, Any] = {
    "runs": Path,
    "published": Path,
    "curves": Path,
    "tensorboard": Path,
    "sacred": Path,
    "tasks": str,
    "rule": str,
}


def usage_of_sources() -> str:
    """The arguments of `SOURCE_OPTIONS`, for `--help`."""
    return f"""\
  runs=DIR       folder of the runs (default: {default_runs_dir()})
  published=DIR  the paper authors' released curves, <method>/<task>.csv
                 (`python analysis/fetch_published.py` downloads them; figures and report take
                 them from $TDMPC2_PUBLISHED or from there where there is no run at all)
  curves=PATH    your own method's curves: a folder laid out like those, or one CSV file with the
                 columns task,seed,step,return|success and, if there are several, method
  tensorboard=DIR, sacred=DIR
                 runs that these recorded: <method>/<task>/<seed>/events.out.tfevents.*, or
                 Sacred folders whose config.json names task, seed and method
  tasks=NAMES    only these tasks: names or shell patterns, tasks=walker-*,cup-catch; for agents
                 of several tasks the names of their sets, tasks=mt80"""


def released_curves() -> Path:
    """Folder of the released curves: `$TDMPC2_PUBLISHED`, else where they are fetched to."""
    named = os.environ.get("TDMPC2_PUBLISHED")
    return Path(named).expanduser().absolute() if named else cache_dir() / PUBLISHED


def load_sources(
    arguments: Mapping[str, Any], *, multitask: bool = False, released: bool = False
) -> Records:
    """The records that the arguments name.

    Args:
        arguments: parsed, of `SOURCE_OPTIONS`; others are passed over.
        multitask: whether runs of several tasks will do, where there are no others.
        released: whether the released curves, if they are there, take the place of the runs
            where there is none and nothing else is named.

    Raises:
        UserError: a folder is missing, or there is no evaluation in any of them.
    """
    runs_dir: Path = arguments.get("runs", default_runs_dir())
    others = [key for key in ("published", "curves", "tensorboard", "sacred") if key in arguments]
    if others and "runs" in arguments and not runs_dir.is_dir():
        raise UserError(f"runs={runs_dir} does not exist")
    parts = [load(runs_dir)]
    nothing = not others and parts[0].table.empty and not len(parts[0].multitask)
    chosen = {key: arguments[key] for key in others}
    if released and nothing and "runs" not in arguments and released_curves().is_dir():
        chosen[PUBLISHED] = released_curves()
        text = f"no run in {runs_dir}: the released curves alone, from {chosen[PUBLISHED]}"
        print(text, file=sys.stderr)
    for key, path in chosen.items():
        if not path.exists():
            raise UserError(f"{key}={path} does not exist")
        source = PUBLISHED if key == PUBLISHED else path.stem
        parts.append(load_curves(path, source, key if key in READERS else "csv"))
    try:
        records = merge(parts)
    except ValueError as error:
        raise UserError(f"{error}: give the folders different names") from error
    several = records.multitask
    if records.table.empty and not (multitask and len(several.table)):
        report(records.problems)
        if len(several.table):
            raise UserError(
                f"no run of a single task in {runs_dir}, only {several.summary()}, which "
                "`python analysis/make_figures.py` draws"
            )
        count = len(records.runs) + len(several)
        found = f"{count} run{'s' * (count > 1)} without evaluation" if count else "no run"
        raise UserError(
            f"{found} in {runs_dir}; run `python sweeps/launch.py suite=smoke seeds=2` first, name "
            "the folder of your runs with runs=DIR, or get the paper's released curves with "
            "`python analysis/fetch_published.py`"
        )
    return _on_tasks(records, arguments["tasks"]) if "tasks" in arguments else records


def report(problems: Sequence[Problem]) -> None:
    """Prints the first problems on stderr, errors before warnings."""
    ordered = sorted(problems, key=lambda problem: problem.severity)
    for problem in ordered[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(ordered) > SHOWN_PROBLEMS:
        rest = len(ordered) - SHOWN_PROBLEMS
        print(f"... and {rest} more, see problems.csv", file=sys.stderr)


def _on_tasks(records: Records, names: str) -> Records:
    """The records of some tasks; UserError where a pattern fits none."""
    patterns = names.split(",")
    there = [*records.runs["task"].unique(), *records.multitask.runs["task_set"].unique()]
    for pattern in patterns:
        if not any(fnmatchcase(task, pattern) for task in there):
            raise UserError(f"tasks: no record of a task '{pattern}'")
    return records.select(tasks=patterns)
