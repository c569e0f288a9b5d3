"""Command-line options that select the sources of records, shared by all commands here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.problems import Problem
from analysis.records.progress import doing
from analysis.records.sources import PUBLISHED
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir, default_runs_dir, recorded_folders, user_path

if TYPE_CHECKING:
    from analysis.records.load import Records

SHOWN_PROBLEMS = 20
RECORDED = "use all folders of paper_figures/recorded instead of runs="
"""Meaning of the option `recorded=`."""
BY_MAKE_FIGURES = "which `python analysis/make_figures.py` lists in problems.csv"
"""Where the problems of records are listed, for commands that do not list them."""


@dataclass(frozen=True)
class SourceOptions(Settings):
    """Options of all commands that read records."""

    runs: Path | None = setting(None, "folder of the runs; default: runs/ in the checkout")
    recorded: bool = setting(False, RECORDED)
    published: Path | None = setting(
        None,
        "learning curves released by the authors of the paper, <method>/<task>.csv; "
        "`python analysis/fetch_published.py` downloads them. Default: none; with recorded=true, "
        "and if there are no runs in make_figures.py and report.py, $TDMPC2_PUBLISHED or the "
        "downloaded curves",
    )
    curves: Path | None = setting(
        None,
        "curves of your own method: a folder in the same layout, or one CSV file with the columns "
        "task,seed,step,return|success and, for several methods, method",
    )
    tensorboard: Path | None = setting(
        None,
        "folder of runs recorded with TensorBoard, <method>/<task>/<seed>/events.out.tfevents.*",
    )
    sacred: Path | None = setting(
        None,
        "folder of runs recorded with Sacred, whose config.json contains task, seed and method",
    )
    tasks: str | None = setting(
        None,
        "only these tasks, as names or shell patterns: tasks=walker-*,cup-catch; for multi-task "
        "agents, names of task sets: tasks=mt80; default: all",
    )


def chosen_folders(named: Sequence[Path], *, recorded: bool) -> list[Path]:
    """Return the folders of runs that are named, those of recorded runs, or the default folder.

    Args:
        named: value of `runs=`; empty if it is not given.
        recorded: value of `recorded=`.

    Raises:
        UserError: both are given, or there are no recorded runs.
    """
    if not recorded:
        return list(named) or [default_runs_dir()]
    if named:
        raise UserError("runs= and recorded=true exclude each other; give one of them")
    return recorded_folders()


def folders_of(options: SourceOptions) -> list[Path]:
    """Return the folders of runs that the options select; see `chosen_folders`."""
    named = [] if options.runs is None else [options.runs]
    return chosen_folders(named, recorded=options.recorded)


def released_curves() -> Path:
    """Return the folder of the released curves: `$TDMPC2_PUBLISHED` or the download folder."""
    named = os.environ.get("TDMPC2_PUBLISHED")
    return user_path(named, "TDMPC2_PUBLISHED") if named else cache_dir() / PUBLISHED


def load_sources(
    options: SourceOptions, *, multitask: bool = False, released: bool = False
) -> Records:
    """Load the records that the options select.

    Args:
        options: options that select the sources.
        multitask: whether to include multi-task runs.
        released: whether to use the released curves, if they are available, when there are no runs
            and no other source is given. With the recorded runs, they are always used.

    Raises:
        UserError: If a folder is missing, or no source contains an evaluation.
    """
    from analysis.records.evaluations import ENV_STEPS
    from analysis.records.load import READERS, load_curves, merge
    from analysis.records.run_folders import load_folders

    folders = folders_of(options)
    runs_dir = folders[0].parent if options.recorded else folders[0]
    sources = (PUBLISHED, "curves", "tensorboard", "sacred")
    chosen: dict[str, Path] = {k: v for k in sources if (v := getattr(options, k)) is not None}
    if chosen and options.runs is not None and not runs_dir.is_dir():
        raise UserError(f"runs={runs_dir} does not exist")
    named = options.recorded or options.runs is not None
    with doing(f"reading {runs_dir}"):
        loaded = [load_folders(folders)]
    if options.recorded and options.published is None and released_curves().is_dir():
        chosen[PUBLISHED] = released_curves()
    no_records = not chosen and loaded[0].table.empty
    if released and no_records and not named and released_curves().is_dir():
        chosen[PUBLISHED] = released_curves()
        notice = f"no run in {runs_dir}; using only the released curves in {chosen[PUBLISHED]}"
        print(notice, file=sys.stderr)
    for key, path in chosen.items():
        if not path.exists():
            raise UserError(f"{key}={path} does not exist")
        source = PUBLISHED if key == PUBLISHED else path.stem
        with doing(f"reading {path}"):
            loaded.append(load_curves(path, source, key if key in READERS else "csv"))
    try:
        records = merge(loaded)
    except ValueError as error:
        raise UserError(f"{error}: give the folders different names") from error
    if chosen and _names_no_runs(options.runs, loaded[0]):
        missing = Problem(f"runs={runs_dir}", None, "no runs there", "warning")
        records = replace(records, problems=(missing, *records.problems))
    usable = records if multitask else records.select(step_unit=ENV_STEPS)
    if usable.table.empty:
        report(records.problems, BY_MAKE_FIGURES)
        if len(records.table):
            raise UserError(
                f"no single-task run in {runs_dir}, only {records.multitask_summary()}; run "
                "`python analysis/make_figures.py` to draw their figures"
            )
        count = records.runs["directory"].nunique()
        what = f"{count} run{'s' * (count > 1)} without evaluation" if count else "no run"
        raise UserError(
            f"{what} in {runs_dir}; run `python sweeps/launch.py suite=smoke seeds=2` first, name "
            "the folder of your runs with runs=DIR, or download the paper's released curves with "
            "`python analysis/fetch_published.py`"
        )
    return usable if options.tasks is None else on_tasks(usable, options.tasks)


def _names_no_runs(named: Path | None, loaded: Records) -> bool:
    """Return whether a folder was named that is not the default and contains nothing of a run."""
    if named is None or named.resolve() == default_runs_dir().resolve():
        return False
    return loaded.runs.empty and not loaded.problems


def report(problems: Sequence[Problem], listed: str = "") -> None:
    """Print the first `SHOWN_PROBLEMS` problems on stderr, errors before warnings.

    Args:
        problems: problems.
        listed: where all of them are listed, for the case that there are more.
    """
    ordered = sorted(problems, key=lambda problem: problem.severity)
    for problem in ordered[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(ordered) > SHOWN_PROBLEMS:
        rest = len(ordered) - SHOWN_PROBLEMS
        print(f"... and {rest} more{listed and f', {listed}'}", file=sys.stderr)


def on_tasks(records: Records, names: str) -> Records:
    """Return the records of the given tasks.

    Raises:
        UserError: a pattern matches no record.
    """
    patterns = names.split(",")
    available = set(records.names())
    for pattern in patterns:
        if not any(fnmatchcase(task, pattern) for task in available):
            raise UserError(f"tasks: no record of task '{pattern}'")
    return records.select(tasks=patterns)
