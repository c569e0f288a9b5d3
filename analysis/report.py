"""Command: write an HTML report of all records as one file that works offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.records.source_options import SOURCE_OPTIONS, load_sources, report, usage_of_sources
from analysis.stats.rules import DEFAULT_RULE, get_rule, usage_of_rules
from tdmpc2.common.system.atomic_files import write_atomic
from tdmpc2.common.system.cli import command, parse_arguments
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root

ASSETS = Path(__file__).parent / "html_report"


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/report.py [key=value ...]

Writes an HTML report as one file that works offline: aggregate scores with confidence intervals;
learning curves, seeds, losses and settings of every task; the comparison with the published
curves; variants; and the audit of the records.

{usage_of_sources()}
{usage_of_rules()}
  out=FILE       output file (default: {_default_file()})
  reps=N         number of bootstrap resamples (default: 10,000)
  --help         print this text

exit code: 0 success, possibly with warnings; 1 the report was written, but records that
should have been usable were excluded; 2 bad input or nothing to show, and nothing was written."""


def main(arguments: Sequence[str]) -> int:
    """Write the report and print its path.

    Args:
        arguments: `key=value` options, each optional; see `usage`.

    Returns:
        1 if records that should have been usable were excluded, else 0.

    Raises:
        UserError: If an argument is unknown, a file or folder is unusable, or there is nothing to
            show.
    """
    values = parse_arguments(arguments, {**SOURCE_OPTIONS, "out": Path, "reps": int})
    out: Path = values.get("out", _default_file())
    if out.is_dir():
        raise UserError(f"out={out} is a folder; name a file, such as out={out / 'report.html'}")
    rule = get_rule(values.get("rule", DEFAULT_RULE))
    # These import pandas and matplotlib.
    from analysis.figures.figure_specs import with_reps
    from analysis.figures.registry import shipped_catalog
    from analysis.html_report.data import report_data

    catalog = with_reps(shipped_catalog(), values.get("reps", 10_000))
    data, problems = report_data(load_sources(values, released=True), catalog, rule)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, lambda file: file.write(page(data).encode()))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    report(problems)
    print(out)
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def page(data: dict[str, Any]) -> str:
    """Return the HTML page.

    Args:
        data: from `report_data`.
    """
    # Escaping "<" is enough: only "</" and "<!--" have a meaning inside a script element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    assets = {name: (ASSETS / name).read_text(encoding="utf-8") for name in _FILES}
    html = assets["page.html"].replace("/*STYLE*/", assets["style.css"])
    html = html.replace("/*SCRIPT*/", assets["chart.js"] + assets["page.js"])
    return html.replace("/*DATA*/", text)


_FILES = ("page.html", "style.css", "chart.js", "page.js")


def _default_file() -> Path:
    """Return the default output file."""
    return project_root() / "paper_figures" / "report.html"


if __name__ == "__main__":
    sys.exit(command(main, usage))
