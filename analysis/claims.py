"""Command: the status of every quantitative claim of the paper, from records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.ledger.pages import rewrite_page, write_page
from analysis.records.source_options import BY_MAKE_FIGURES, FolderOptions, report
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import setting


@dataclass(frozen=True)
class ClaimsOptions(FolderOptions):
    """Options of the command."""

    out: Path | None = setting(None, "write a page in Markdown to this file; default: print it")
    readme: Path | None = setting(None, "also replace the table of statuses in this file")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/claims.py [key=value …]

Derives the status of every claim in paper_figures/claims.toml from records: own runs, the released
curves, and numbers that are quoted from the paper. "Reproduced" is the verdict of reproduce.py on
own runs at the paper's settings, with those of all precisions as one series. `make claims` writes
docs/claims.md and the table in README.md.

{describe_fields(ClaimsOptions)}

Exit code: 0 success; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a folder is missing, or a file cannot be written.
    """
    options = parse_options(arguments, ClaimsOptions)
    folders, released = options.folders(), options.released()
    from analysis.figures.registry import shipped_catalog
    from analysis.ledger.claims_file import ledger_path, read_ledger
    from analysis.ledger.evidence import findings_of
    from analysis.ledger.inputs import Inputs
    from analysis.ledger.rendering import page, with_excerpt

    ledger = read_ledger(ledger_path())
    inputs = Inputs.read(folders, released, shipped_catalog())
    report(inputs.problems, BY_MAKE_FIGURES)
    findings = findings_of(ledger, inputs)
    text = page(ledger, findings, released=released is not None)
    if options.out is None:
        print(text, end="")
    else:
        write_page(options.out, text)
    if options.readme is not None:
        rewrite_page(options.readme, "readme", lambda text: with_excerpt(text, findings))
    return 0


if __name__ == "__main__":
    sys.exit(command(main, usage))
