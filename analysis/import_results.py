"""Command: show what is understood of other people's result files, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.records.problems import Problem
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import user_path


@dataclass(frozen=True)
class ImportOptions(Settings):
    """Options of the command."""

    name: str = setting("", "name of the source; default: that of each file")
    out: Path | None = setting(None, "write all curves of single seeds to this interchange CSV")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/import_results.py FILE … [key=value …]

Reads result files and shows, for each method, its tasks, seeds and last step, and every line, curve
or file that is not used, with the reason. Formats: the interchange CSV
(exp_name,env_name,seed,metric,env_step,value) and all others that curves= accepts, BMPC's JSON
({{method: {{task: {{steps, values}}}}}}, means), and MR.Q's text tables.

{describe_fields(ImportOptions)}

Exit code: 0 everything was understood; 1 something was refused; 2 bad input or nothing readable."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a file is missing, nothing can be read, or files to be written as one have a
            curve in common.
    """
    given = [one for one in arguments if _is_path(one)]
    options = parse_options([one for one in arguments if one not in given], ImportOptions)
    if not given:
        raise UserError("no file; name result files, e.g. results.csv")
    from tabulate import tabulate

    from analysis.records.field_results import read_field, report_field
    from analysis.records.interchange import table_of, write_interchange

    problems: list[Problem] = []
    found = []
    seen: set[Path] = set()
    for name in given:
        path = user_path(name, "file")
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        found += read_field(path, problems, options.name or None)
    report_field(problems)
    if not found:
        raise UserError(f"{', '.join(given)}: nothing could be read")
    table = table_of(found)
    print(tabulate(table, list(table.columns), showindex=False, intfmt=","))
    if options.out is not None:
        count = write_interchange((one for one in found if one.seed is not None), options.out)
        print(f"{options.out}: {count:,} curves")
    return int(any(problem.severity == "error" for problem in problems))


def _is_path(argument: str) -> bool:
    """Return whether an argument is a file and no option; names of files may contain `=`."""
    return argument[:2] != "--" and ("=" not in argument or Path(argument).exists())


if __name__ == "__main__":
    sys.exit(command(main, usage))
