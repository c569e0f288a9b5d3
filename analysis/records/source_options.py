"""Command-line options that select the sources of records, shared by all commands here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records.problems import Problem
from analysis.records.sources import PUBLISHED
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir, default_runs_dir

if TYPE_CHECKING:
    from analysis.records.load import Records

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
    """Return the text of `SOURCE_OPTIONS` for `--help`."""
    return f"""\
  runs=DIR       folder of the runs (default: {default_runs_dir()})
  published=DIR  learning curves released by the authors of the paper, <method>/<task>.csv;
                 `python analysis/fetch_published.py` downloads them. Default: none; if there are
                 no runs, make_figures.py and report.py use $TDMPC2_PUBLISHED or the downloaded
                 curves
  curves=PATH    curves of your own method: a folder in the same layout, or one CSV file with the
                 columns task,seed,step,return|success and, for several methods, method
  tensorboard=DIR, sacred=DIR
                 runs recorded with TensorBoard, <method>/<task>/<seed>/events.out.tfevents.*, or
                 with Sacred, whose config.json contains task, seed and method
  tasks=NAMES    only these tasks, as names or shell patterns: tasks=walker-*,cup-catch; for
                 multi-task agents, names of task sets: tasks=mt80 (default: all)"""


def released_curves() -> Path:
    """Return the folder of the released curves: `$TDMPC2_PUBLISHED` or the download folder."""
    named = os.environ.get("TDMPC2_PUBLISHED")
    return Path(named).expanduser().absolute() if named else cache_dir() / PUBLISHED


def load_sources(
    arguments: Mapping[str, Any], *, multitask: bool = False, released: bool = False
) -> Records:
    """Load the records that the options select.

    Args:
        arguments: parsed options of `SOURCE_OPTIONS`; others are ignored.
        multitask: whether multi-task runs alone are sufficient.
        released: whether to use the released curves, if they are available, when there are no runs
            and no other source is given.

    Raises:
        UserError: If a folder is missing, or no source contains an evaluation.
    """
    from analysis.records.load import READERS, load, load_curves, merge  # imports pandas

    runs_dir: Path = arguments.get("runs", default_runs_dir())
    others = [key for key in ("published", "curves", "tensorboard", "sacred") if key in arguments]
    if others and "runs" in arguments and not runs_dir.is_dir():
        raise UserError(f"runs={runs_dir} does not exist")
    loaded = [load(runs_dir)]
    no_records = not others and loaded[0].table.empty and not len(loaded[0].multitask)
    chosen = {key: arguments[key] for key in others}
    if released and no_records and "runs" not in arguments and released_curves().is_dir():
        chosen[PUBLISHED] = released_curves()
        notice = f"no run in {runs_dir}; using only the released curves in {chosen[PUBLISHED]}"
        print(notice, file=sys.stderr)
    for key, path in chosen.items():
        if not path.exists():
            raise UserError(f"{key}={path} does not exist")
        source = PUBLISHED if key == PUBLISHED else path.stem
        loaded.append(load_curves(path, source, key if key in READERS else "csv"))
    try:
        records = merge(loaded)
    except ValueError as error:
        raise UserError(f"{error}: give the folders different names") from error
    multitask_runs = records.multitask
    if records.table.empty and not (multitask and len(multitask_runs.table)):
        report(records.problems)
        if len(multitask_runs.table):
            raise UserError(
                f"no single-task run in {runs_dir}, only {multitask_runs.summary()}; run "
                "`python analysis/make_figures.py` to draw their figures"
            )
        count = len(records.runs) + len(multitask_runs)
        what = f"{count} run{'s' * (count > 1)} without evaluation" if count else "no run"
        raise UserError(
            f"{what} in {runs_dir}; run `python sweeps/launch.py suite=smoke seeds=2` first, name "
            "the folder of your runs with runs=DIR, or download the paper's released curves with "
            "`python analysis/fetch_published.py`"
        )
    return _on_tasks(records, arguments["tasks"]) if "tasks" in arguments else records


def report(problems: Sequence[Problem]) -> None:
    """Print the first `SHOWN_PROBLEMS` problems on stderr, errors before warnings."""
    ordered = sorted(problems, key=lambda problem: problem.severity)
    for problem in ordered[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(ordered) > SHOWN_PROBLEMS:
        rest = len(ordered) - SHOWN_PROBLEMS
        print(f"... and {rest} more, see problems.csv", file=sys.stderr)


def _on_tasks(records: Records, names: str) -> Records:
    """Return the records of the given tasks; raise UserError if a pattern matches none."""
    patterns = names.split(",")
    available = [*records.runs["task"].unique(), *records.multitask.runs["task_set"].unique()]
    for pattern in patterns:
        if not any(fnmatchcase(task, pattern) for task in available):
            raise UserError(f"tasks: no record of task '{pattern}'")
    return records.select(tasks=patterns)
