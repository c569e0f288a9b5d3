"""Command: the status of every quantitative claim of the paper, from records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.records.source_options import RECORDED, chosen_folders, released_curves
from tdmpc2.common.system.atomic_files import write_atomic
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import user_path


@dataclass(frozen=True)
class ClaimsOptions(Settings):
    """Options of the command."""

    runs: str = setting("", "folders of runs, DIR,DIR; default: runs/ in the checkout")
    recorded: bool = setting(False, RECORDED)
    published: Path | None = setting(
        None,
        "learning curves released by the authors of the paper; default: $TDMPC2_PUBLISHED or those "
        "that `python analysis/fetch_published.py` has downloaded, if there are any",
    )
    out: Path | None = setting(None, "write a page in Markdown to this file; default: print it")
    readme: Path | None = setting(None, "also replace the table of statuses in this file")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/claims.py [key=value ...]

Derives the status of every claim in paper_figures/claims.toml from records: own runs, the released
curves, and numbers that are quoted from the paper. "Reproduced" is the verdict of reproduce.py on
own runs at the paper's settings. `make claims` writes docs/claims.md and the table in README.md.

{describe_fields(ClaimsOptions)}

exit code: 0 success; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a folder is missing, or a file cannot be written.
    """
    options = parse_options(arguments, ClaimsOptions)
    folders = _folders(options)
    published = options.published or released_curves()
    if options.published is not None and not published.is_dir():
        raise UserError(f"published={published} does not exist")
    released = published if published.is_dir() else None
    from analysis.figures.registry import shipped_catalog
    from analysis.ledger.claims_file import ledger_path, read_ledger
    from analysis.ledger.evidence import findings_of
    from analysis.ledger.inputs import Inputs
    from analysis.ledger.rendering import page, with_excerpt

    ledger = read_ledger(ledger_path())
    findings = findings_of(ledger, Inputs.read(folders, released, shipped_catalog()))
    text = page(ledger, findings, released=released is not None)
    if options.out is None:
        print(text, end="")
    else:
        _write(options.out, text)
    if options.readme is not None:
        try:
            _write(options.readme, with_excerpt(options.readme.read_text("utf-8"), findings))
        except (OSError, ValueError) as error:
            raise UserError(f"readme={options.readme}: {error}") from error
    return 0


def _folders(options: ClaimsOptions) -> list[Path]:
    """Return the folders of runs.

    Raises:
        UserError: a folder does not exist, or both `runs` and `recorded` are given.
    """
    named = [user_path(one, "runs") for one in options.runs.split(",") if one]
    for folder in named:
        if not folder.is_dir():
            raise UserError(f"runs={folder} does not exist")
    return chosen_folders(named, recorded=options.recorded)


def _write(path: Path, text: str) -> None:
    """Write a file and print its path; raise UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(path)


if __name__ == "__main__":
    sys.exit(command(main, usage))
