"""Command: write an HTML report of all records as one file that works offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.records.problems import Problem
from analysis.records.source_options import BY_MAKE_FIGURES, load_sources, report
from analysis.stats.rules import ScoreOptions, get_rule
from tdmpc2.common.system.atomic_files import cannot_write, write_atomic
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import REPS, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root

ASSETS = Path(__file__).parent / "html_report"


@dataclass(frozen=True)
class ReportRequest(ScoreOptions):
    """Which report to write: the options of the command."""

    out: Path | None = setting(None, "output file; default: paper_figures/report.html")
    files: str = setting("", "result files of other methods, FILE,FILE, for the leaderboard")
    results: Path | None = setting(None, "folder of more result files")
    reps: int = setting(1000, "simulated studies that measure coverages, at most 1,000", REPS)


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/report.py [key=value …]

Writes an HTML report as one file that works offline: aggregate scores with confidence intervals;
learning curves, seeds, losses and settings of every task; the comparison with the published
curves; variants; studies that stop when decided; multi-task agents; a leaderboard of all methods,
also of other people's result files; the status of every claim of the paper, unless tasks= is given;
and the audit of the records.

{describe_fields(ReportRequest)}

Exit code: 0 success, possibly with warnings; 1 the report was written, but records that
should have been usable were excluded; 2 bad input or nothing to show, and nothing was written."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code (see `write`).

    Args:
        arguments: `key=value` options, each optional; see `usage`.
    """
    return write(parse_options(arguments, ReportRequest))


def write(request: ReportRequest) -> int:
    """Write the report and print its path.

    Returns:
        1 if records that should have been usable were excluded, else 0.

    Raises:
        UserError: If a value is unknown, a file or folder is unusable, or there is nothing to
            show.
    """
    out = request.out or project_root() / "paper_figures" / "report.html"
    if out.is_dir():
        raise UserError(f"out={out} is a folder; name a file, such as out={out / 'report.html'}")
    rule = get_rule(request.rule)
    from analysis.figures.figure_specs import with_reps
    from analysis.figures.registry import shipped_catalog
    from analysis.html_report.data import report_data

    catalog = with_reps(shipped_catalog(), request.reps)
    records = load_sources(request, multitask=True, released="always")
    from analysis.records.field_results import read_files, report_field
    from analysis.records.studies import read_studies

    field_problems: list[Problem] = []
    others = records.runs["source"].unique()
    files = read_files(request.files, request.results, field_problems, others)
    studies, unreadable = read_studies(request.folders())
    records = replace(records, problems=(*records.problems, *unreadable))
    data, problems = report_data(records, catalog, rule, files, studies, tasks_given=request.tasks)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, lambda file: file.write(page(data).encode()))
    except OSError as error:
        raise UserError(cannot_write(str(out), error)) from error
    report(problems, BY_MAKE_FIGURES)
    report_field(field_problems)
    print(out)
    return int(any(problem.severity == "error" for problem in (*problems, *field_problems)))


def page(data: dict[str, Any]) -> str:
    """Return the HTML page.

    Args:
        data: from `report_data`.
    """
    # Escaping "<" is enough: only "</" and "<!--" have a meaning inside a script element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    assets = {name: (ASSETS / name).read_text(encoding="utf-8") for name in _FILES}
    html = assets["page.html"].replace("/*STYLE*/", "".join(assets[name] for name in _STYLES))
    html = html.replace("/*SCRIPT*/", "\n".join(assets[name] for name in _SCRIPTS))
    return html.replace("/*DATA*/", text)


_STYLES = ("uplot/uPlot.min.css", "style.css")
_SCRIPTS = (
    "uplot/uPlot.iife.min.js",
    "markers.js",
    "chart.js",
    "tables.js",
    "claims.js",
    "studies.js",
    "page.js",
)
_FILES = ("page.html", *_STYLES, *_SCRIPTS)


if __name__ == "__main__":
    sys.exit(command(main, usage))
