"""Command: write own runs in the interchange CSV of result files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir


@dataclass(frozen=True)
class ExportOptions(Settings):
    """Options of the command."""

    out: Path = setting(REQUIRED, "CSV file to write")
    runs: Path = setting(default_runs_dir, "folder of the runs")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/export_results.py out=FILE [key=value …]

Writes the evaluations of single-task runs from states as CSV with the columns
exp_name,env_name,seed,metric,env_step,value. `analysis/import_results.py` reads it.

{describe_fields(ExportOptions)}

Exit code: 0 success; 2 bad input or no run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: the folder does not exist or has no run with evaluations.
    """
    options = parse_options(arguments, ExportOptions)
    if not options.runs.is_dir():
        raise UserError(f"runs={options.runs}: no such folder")
    from analysis.records.interchange import write_interchange
    from analysis.records.run_folders import load_folders
    from analysis.records.source_options import report
    from analysis.stats.run_series import series_of

    records = load_folders([options.runs])
    report(records.problems)
    found = list(series_of(records))
    if not found:
        raise UserError(f"runs={options.runs}: no single-task run with evaluations from states")
    print(f"{options.out}: {write_interchange(found, options.out):,} curves")
    return 0


if __name__ == "__main__":
    sys.exit(command(main, usage))
