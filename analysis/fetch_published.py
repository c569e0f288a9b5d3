"""Command: downloads the learning curves that the paper's authors released."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.records.load import PUBLISHED, load_curves
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.cli import command, parse_arguments
from tdmpc2.common.system.download import download, put_in_place, unpack
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir

URL = "https://github.com/nicklashansen/tdmpc2/archive/refs/heads/main.zip"
RESULTS = "*/results"
"""Folder of the curves in that archive."""
KNOWN_FILES = 428
KNOWN_DIGEST = "d61884154770d606ccda6a1297fb756f92222bc0431851914c479ece1be3347b"
"""Of the release that the project's tests and figures were checked with."""


def usage() -> str:
    """What `--help` prints."""
    return f"""\
Downloads the learning curves that the paper's authors released: 104 tasks, four methods, three
seeds, and twelve tasks from pixels (MIT license).

usage: python analysis/fetch_published.py [key=value ...]

  out=DIR        where they go (default: {default_folder()})
  url=URL        a zip archive with a folder `results/` (default: {URL})
  archive=FILE   that archive, downloaded elsewhere
  --help         this text

Then: python analysis/make_figures.py published={default_folder()}

exit code: 0 the curves are there; 2 they could not be fetched, and nothing was written."""


def default_folder() -> Path:
    """Where the curves go unless told otherwise."""
    return cache_dir() / PUBLISHED


def main(arguments: Sequence[str]) -> int:
    """Fetches the curves, unless they are there, and prints their folder.

    Args:
        arguments: `out=DIR`, `url=URL`, `archive=FILE`, each optional.

    Raises:
        UserError: no network, a damaged archive, one without curves, or an unwritable folder.
    """
    values = parse_arguments(arguments, {"out": Path, "url": str, "archive": Path})
    target: Path = values.get("out", default_folder())
    if target.exists():
        print(f"{target} is there already; remove it to fetch it again", file=sys.stderr)
    else:
        with put_in_place(target, "name another folder with out=") as folder:
            archive = values.get("archive")
            if archive is None:
                archive = folder.parent / "curves.zip"
                download(values.get("url", URL), archive, "released curves")
            elif not archive.is_file():
                raise UserError(f"archive={archive}: no such file")
            unpack(archive, RESULTS, folder)
            records = load_curves(folder, PUBLISHED)
            if records.table.empty:
                raise UserError(f"{archive}: holds no curves in {RESULTS}")
    _tell(target)
    print(target)
    return 0


def digest(folder: Path) -> tuple[int, str]:
    """Number of files `<method>/<task>.csv` and a checksum over all of them."""
    whole = hashlib.sha256()
    files = sorted(folder.glob("*/*.csv"))
    for file in files:
        whole.update(f"{file.relative_to(folder).as_posix()} {sha256_of(file)}\n".encode())
    return len(files), whole.hexdigest()


def _tell(folder: Path) -> None:
    """Says whether the curves are those the project was checked with."""
    count, found = digest(folder)
    if found == KNOWN_DIGEST:
        print(f"{count} files, those this project was checked with", file=sys.stderr)
    else:
        print(
            f"warning: {count} files that differ from the {KNOWN_FILES} this project was checked "
            f"with (checksum {found[:12]}…, not {KNOWN_DIGEST[:12]}…)",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(command(main, usage))
