"""Command-line options that select the sources of records, shared by all commands here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analysis.records.problems import Problem
from analysis.records.progress import doing
from analysis.records.sources import PUBLISHED, RESERVED
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import (
    cache_dir,
    default_runs_dir,
    listed_paths,
    named_folders,
    recorded_folders,
    user_path,
)

if TYPE_CHECKING:
    from analysis.records.load import Records

SHOWN_PROBLEMS = 20
NO_RELEASED_CURVES = (
    "the released curves are missing: name their folder with published=DIR "
    "(`python analysis/fetch_published.py` downloads them)"
)
"""Message of commands that need them."""
BY_MAKE_FIGURES = "which `python analysis/make_figures.py` lists in problems.csv"
"""Where the problems of records are listed, for commands that do not list them."""


@dataclass(frozen=True)
class RunOptions(Settings):
    """Options of commands that read runs."""

    runs: str = setting("", "folder of runs, or several: DIR,DIR; default: runs/ in the checkout")
    recorded: bool = setting(False, "use all folders of paper_figures/recorded instead of runs=")

    def __post_init__(self) -> None:
        """Reject values out of range, options that exclude each other, and paths of no user."""
        super().__post_init__()
        if self.runs and self.recorded:
            raise UserError("runs= and recorded=true exclude each other; give one of them")
        listed_paths(self.runs, "runs")

    def folders(self) -> list[Path]:
        """Return the folders of runs.

        Raises:
            UserError: a folder does not exist, or there are no recorded runs.
        """
        if self.recorded:
            return recorded_folders()
        return named_folders(self.runs, "runs") or [default_runs_dir()]


@dataclass(frozen=True)
class RunsOfTasks(RunOptions):
    """Options of commands that read the runs of some tasks."""

    tasks: str | None = setting(
        None,
        "only these tasks, as names or shell patterns: tasks=walker-*,cup-catch; for multi-task "
        "agents, names of task sets: tasks=mt80; default: all",
    )


@dataclass(frozen=True)
class FolderOptions(RunOptions):
    """Options of commands that read runs and released curves."""

    published: str = setting(
        "",
        "learning curves released by the authors of the paper, <method>/<task>.csv, or none; "
        "default: $TDMPC2_PUBLISHED or those that `python analysis/fetch_published.py` has "
        "downloaded, if there are any",
    )

    def released(self) -> Path | None:
        """Return the folder of the released curves; None if there is none or `none` is given.

        Raises:
            UserError: the folder that is named does not exist.
        """
        return chosen_released(self.published)

    def needed_released(self) -> Path:
        """Return the folder of the released curves.

        Raises:
            UserError: there is none.
        """
        folder = self.released()
        if folder is None:
            raise UserError(NO_RELEASED_CURVES)
        return folder


@dataclass(frozen=True)
class SourceOptions(FolderOptions, RunsOfTasks):
    """Options of commands that read records of several sources."""

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


def released_curves() -> Path:
    """Return the folder of the released curves: `$TDMPC2_PUBLISHED` or the download folder."""
    named = os.environ.get("TDMPC2_PUBLISHED")
    return user_path(named, "TDMPC2_PUBLISHED") if named else cache_dir() / PUBLISHED


def chosen_released(published: str) -> Path | None:
    """Return the released curves that the option `published` selects; None if there are none.

    Args:
        published: a path; `none`; or empty for `released_curves`.

    Raises:
        UserError: the path, or that of `TDMPC2_PUBLISHED`, does not exist.
    """
    if published == "none":
        return None
    path = user_path(published, PUBLISHED) if published else released_curves()
    if path.exists():
        return path
    if published:
        raise UserError(f"published={path} does not exist")
    if os.environ.get("TDMPC2_PUBLISHED"):
        raise UserError(f"TDMPC2_PUBLISHED={path} does not exist; name another folder or unset it")
    return None


def load_sources(
    options: RunsOfTasks,
    *,
    multitask: bool = False,
    released: Literal["never", "beside runs", "always"] = "never",
) -> Records:
    """Load the records that the options select.

    Args:
        options: options that select the sources; only `SourceOptions` select more than runs.
        multitask: whether to include multi-task runs.
        released: whether to use the released curves if they are available. `always` means also if
            there are no runs, unless a folder of runs is named.

    Raises:
        UserError: If a folder is missing, or no source contains an evaluation.
    """
    from analysis.records.evaluations import ENV_STEPS
    from analysis.records.load import READERS, load_curves, merge
    from analysis.records.run_folders import load_folders

    folders = options.folders()
    runs_dir = folders[0].parent if options.recorded else ", ".join(map(str, folders))
    chosen: dict[str, Path] = {}
    published, asked_for = None, False
    if isinstance(options, SourceOptions):
        kinds = ("curves", "tensorboard", "sacred")
        chosen = {k: v for k in kinds if (v := getattr(options, k)) is not None}
        published = None if released == "never" else options.released()
        asked_for = bool(options.published)
    named = options.recorded or bool(options.runs)
    with doing(f"reading {runs_dir}"):
        loaded = [load_folders(folders)]
    alone = not chosen and loaded[0].table.empty
    instead = alone and released == "always" and not named
    if published is not None and (asked_for or instead or not alone):
        chosen = {PUBLISHED: published, **chosen}
        if instead and not asked_for:
            notice = f"no run in {runs_dir}; using only the released curves in {published}"
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
    for key, path in chosen.items():
        if key != PUBLISHED and path.stem in RESERVED:
            what = f"'{path.stem}' is the name of a source of this project; rename it"
            raise UserError(f"{key}={path}: {what}")
    if chosen and options.runs and _no_runs(folders, loaded[0]):
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
        ways = [
            "run `python sweeps/launch.py suite=smoke seeds=2` first",
            "name the folder of your runs with runs=DIR",
        ]
        if released == "always":
            fetch = "download the paper's released curves with `python analysis/fetch_published.py`"
            use = f"use the released curves with published={published}"
            ways.append(fetch if published is None else use)
        *others, last = ways
        too = f"; {NO_RELEASED_CURVES}" if released == "beside runs" and published is None else ""
        raise UserError(f"{what} in {runs_dir}; {', '.join(others)} or {last}{too}")
    return usable if options.tasks is None else on_tasks(usable, options.tasks)


def _no_runs(folders: Sequence[Path], loaded: Records) -> bool:
    """Return whether folders, none of them the default one, contain nothing of a run."""
    default = default_runs_dir().resolve()
    return default not in map(Path.resolve, folders) and loaded.runs.empty and not loaded.problems


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
