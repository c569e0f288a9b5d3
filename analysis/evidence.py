"""Command: own runs at the paper's settings beside the released seeds, as tables for the docs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.ledger.pages import rewrite_page
from analysis.records.source_options import BY_MAKE_FIGURES, FolderOptions, report
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import setting
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class EvidenceOptions(FolderOptions):
    """Options of the command."""

    page: Path | None = setting(None, "replace both tables in this file; default: print them")
    readme: Path | None = setting(None, "also replace the table of verdicts in this file")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/evidence.py [key=value …]

Lists own runs of one task at the paper's settings (variant default, nothing overridden), finished
or not, from states and from pixels, and compares them with the released seeds of the same method
and task, with the verdicts of reproduce.py; runs of all precisions are one series. Scores are
those of single seeds: returns, or success in percent. If our runs end before the first released
evaluation, both are stated, each at its step. `make evidence` writes the tables in
docs/evidence.md and README.md, and the figure.

{describe_fields(EvidenceOptions)}

Exit code: 0 success; 2 bad input, or no such run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a folder is missing, there is nothing to show, or a file cannot be changed.
    """
    options = parse_options(arguments, EvidenceOptions)
    folders, released = options.folders(), options.needed_released()
    from analysis.figures.registry import shipped_catalog
    from analysis.ledger.inputs import Inputs
    from analysis.ledger.own_runs import RUN_TABLE, VERDICT_TABLE, run_table, verdict_table
    from analysis.ledger.rendering import with_part

    inputs = Inputs.read(folders, released, shipped_catalog())
    report(inputs.problems, BY_MAKE_FIGURES)
    verdicts, runs = verdict_table(inputs), run_table(inputs)
    if not runs:
        named = ", ".join(map(str, folders))
        raise UserError(f"no run at the paper's settings in {named}; name folders with runs=DIR")
    if options.page is None:
        print("\n\n".join(filter(None, [verdicts, runs])))
    else:
        rewrite_page(
            options.page,
            "page",
            lambda text: with_part(with_part(text, VERDICT_TABLE, verdicts), RUN_TABLE, runs),
        )
    if options.readme is not None:
        rewrite_page(
            options.readme, "readme", lambda text: with_part(text, VERDICT_TABLE, verdicts)
        )
    return 0


if __name__ == "__main__":
    sys.exit(command(main, usage))
