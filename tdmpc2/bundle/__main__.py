"""Command: `python -m tdmpc2.bundle out=DIR` writes an artifact bundle, `verify DIR` checks one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import user_path


@dataclass(frozen=True)
class BundleOptions(Settings):
    """Options of the command."""

    out: Path = setting(REQUIRED, "folder to write, which must not exist")
    runs: str = setting("", "folders of runs, DIR,DIR; default: those of paper_figures/recorded")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python -m tdmpc2.bundle out=DIR [key=value …]
       python -m tdmpc2.bundle verify DIR

The first form writes a folder with the records of runs, the numbers of all figures, the pinned and
installed packages, the commit, the commands, cards of models and data, a Croissant description, an
artifact appendix, and checksums of everything. The second form checks every checksum, computes the
numbers of all figures again from the records, and compares them.

{cli.describe_fields(BundleOptions)}

Exit code: 0 written or verified; 1 differences were found, each is printed; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a folder is missing or unusable.
    """
    if arguments[:1] == ["verify"]:
        return verify(arguments[1:])
    options = cli.parse_options(arguments, BundleOptions)
    from tdmpc2.bundle.contents import create, folders_of

    out = options.out.absolute()
    count = create(folders_of(options.runs), out)
    print(f"{out}: {count} files; check it with: python -m tdmpc2.bundle verify {out}")
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Check a bundle and print what differs; return 0 if nothing does, else 1.

    Raises:
        UserError: no or several folders, or no bundle.
    """
    if len(arguments) != 1 or "=" in arguments[0]:
        given = " ".join(arguments) or "none"
        raise UserError(
            f"verify {given}: name one folder, as in `python -m tdmpc2.bundle verify DIR`"
        )
    from tdmpc2.bundle.checks import damages, files_of, redrawn

    folder = user_path(arguments[0], "verify")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = list(damages(folder))
    print(
        f"checksums of {len(files_of(folder))} files: {len(found) or 'no'} differences", flush=True
    )
    if not found:  # figures of changed records would only repeat the same difference
        found = list(redrawn(folder))
        print(f"numbers of all figures: {len(found) or 'no'} differences")
    for line in found:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
