"""Command: compare methods from result files on the tasks and at a step that all of them have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.problems import Problem
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.tasks import SUITES

if TYPE_CHECKING:
    from analysis.records.field_results import Series
    from analysis.stats.leaderboard import Leaderboard

GROUPS = "dmcontrol,metaworld,maniskill2,myosuite,locomotion"


@dataclass(frozen=True)
class LeaderboardOptions(Settings):
    """Options of the command."""

    files: str = setting("", "result files, FILE,FILE: CSV, BMPC's JSON, MR.Q's text tables")
    results: Path | None = setting(None, "folder of more result files")
    published: str = setting(
        "",
        "released curves, or none; default: $TDMPC2_PUBLISHED or the downloaded ones, if there are "
        "any",
    )
    runs: Path | None = setting(None, "folder of own runs; default: none")
    methods: str = setting("", "only these methods, NAME,NAME or 'NAME (SOURCE)'; default: all")
    groups: str = setting(GROUPS, "groups of tasks to compare, suites of the task table")
    step: int | None = setting(
        None,
        "env steps at which to compare; default: the largest that most common tasks have",
        low=1,
        high=10_000_000_000,
    )
    out: Path | None = setting(None, "folder of the tables; default: paper_figures/leaderboard")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/leaderboard.py files=FILE,FILE [key=value …]

Compares methods of several sources: in each group, on the tasks that all methods have, and at one
step; nothing is carried forward or filled in, and what is left out is named.
Sources with the same numbers are recognized and counted once. Methods of which only means are known
have no intervals. P(better than tdmpc2) is the probability that a run scores higher than one
of TD-MPC2; without it, the table names the first method with seeds instead.

{describe_fields(LeaderboardOptions)}

Writes a table per group (.csv, .md), scores per task (_tasks.csv) and mean scores over env steps
(_curves.csv), and a figure of these with intervals (sample_efficiency.png, .pdf, .csv).

Exit code: 0 success; 1 tables were written, but parts of the files could not be used; 2 bad input
or nothing to compare, and nothing was written."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a file or a name is unknown, or there is nothing to compare.
    """
    options = parse_options(arguments, LeaderboardOptions)
    for group in options.groups.split(","):
        if group not in SUITES:
            raise UserError(f"groups={group}: no such suite{did_you_mean(group, SUITES)}")
    from analysis.records.field_results import report_field
    from analysis.stats.copies import united
    from analysis.stats.leaderboard import leaderboards, methods_of

    problems: list[Problem] = []
    kept, copies = united(load_all(options, problems))
    for copy in copies:
        print(copy)
    methods = methods_of(kept)
    if options.methods:
        wanted = options.methods.split(",")
        known = {name for method in methods for name in (method.name, method.label)}
        for name in wanted:
            if name not in known:
                raise UserError(f"methods={name}: no such method{did_you_mean(name, known)}")
        methods = [m for m in methods if m.name in wanted or m.label in wanted]
    boards = leaderboards(methods, options.groups.split(","), problems, options.step)
    report_field(problems)
    if not boards:
        raise UserError("no group with two methods that have tasks and a step in common")
    write(boards, options.out or project_root() / "paper_figures" / "leaderboard")
    return int(any(problem.severity == "error" for problem in problems))


def load_all(options: LeaderboardOptions, problems: list[Problem]) -> list[Series]:
    """Return the series of all sources.

    Args:
        options: options of the command.
        problems: list to which what is not used is appended.

    Raises:
        UserError: a file is missing, or there is no series at all.
    """
    from analysis.records.field_results import read_field, read_files
    from analysis.records.run_folders import load_folders
    from analysis.records.source_options import chosen_released
    from analysis.stats.run_series import series_of

    released = chosen_released(options.published)
    found: list[Series] = []
    if released is not None:
        found += read_field(released, problems, "published")
    found += read_files(options.files, options.results, problems)
    if options.runs is not None:
        records = load_folders([options.runs])
        problems += records.problems
        found += series_of(records)
    if not found:
        raise UserError(
            "no curves; name result files with files= or released curves with published="
        )
    return found


def write(boards: Sequence[Leaderboard], folder: Path) -> None:
    """Write the tables of all groups, and print them.

    Args:
        boards: comparisons.
        folder: folder of the tables.
    """
    from tabulate import tabulate

    from analysis.figures.leaderboard_plots import efficiency_figure
    from analysis.figures.output import write_figure, write_table, write_texts
    from analysis.figures.page import paper_style
    from analysis.figures.registry import shipped_catalog
    from analysis.stats.leaderboard import text_table

    folder.mkdir(parents=True, exist_ok=True)
    for board in boards:
        print(f"\n{board.group}: {board.title}")
        shown = text_table(board)
        print(tabulate(shown, list(shown.columns), showindex=False, disable_numparse=True))
        write_table(folder / f"{board.group}.csv", board.table)
        write_table(folder / f"{board.group}_tasks.csv", board.per_task.reset_index())
        write_table(folder / f"{board.group}_curves.csv", board.curves.reset_index())
        write_texts(folder / board.group, shown)
    with paper_style():
        page, numbers = efficiency_figure(boards, shipped_catalog())
        paths = list(write_figure(folder / "sample_efficiency", [page]))
    write_table(folder / "sample_efficiency.csv", numbers)
    print(f"\ntables and {paths[-1].name} in {folder}")


if __name__ == "__main__":
    sys.exit(command(main, usage))
