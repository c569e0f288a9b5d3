"""Command: download the learning curves released by the authors of the paper."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.records.sources import PUBLISHED
from tdmpc2.common.system.archives import WITHOUT_NETWORK, unpack
from tdmpc2.common.system.atomic_files import put_in_place, sha256_of
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.download import download
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir

URL = "https://github.com/nicklashansen/tdmpc2/archive/refs/heads/main.zip"
RESULTS = "*/results"
"""Folder of the curves inside the archive."""
KNOWN_FILES = 428
KNOWN_DIGEST = "d61884154770d606ccda6a1297fb756f92222bc0431851914c479ece1be3347b"
"""Checksum of the release, `KNOWN_FILES` files, that the tests and figures were checked with."""


@dataclass(frozen=True)
class FetchOptions(Settings):
    """Options of the command."""

    out: Path | None = setting(None, "output folder; default: the folder named below")
    url: str = setting(URL, "zip archive that contains a folder `results/`")
    archive: Path | None = setting(
        None, "use this local copy of the archive instead of downloading it"
    )


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/fetch_published.py [key=value …]

Downloads the learning curves released by the authors of the paper (MIT license): four methods on
104 tasks with three seeds each, and twelve tasks from pixels.

{describe_fields(FetchOptions)}

All commands find them in {default_folder()},
in the folder that $TDMPC2_PUBLISHED names, or with published=DIR.

Next step: python analysis/make_figures.py

Exit code: 0 success, or the folder already exists; 2 error, and nothing was written."""


def default_folder() -> Path:
    """Return the default output folder."""
    return cache_dir() / PUBLISHED


def main(arguments: Sequence[str]) -> int:
    """Download and unpack the curves unless the folder exists, and print the folder.

    Args:
        arguments: `out=DIR`, `url=URL`, `archive=FILE`, each optional.

    Raises:
        UserError: If the download fails, the archive is damaged or contains no curves, or the
            folder cannot be written.
    """
    options = parse_options(arguments, FetchOptions)
    target = options.out or default_folder()
    if target.exists():
        if digest(target)[0] == 0:
            raise UserError(
                f"{target}: exists, but contains no curves (<method>/<task>.csv); move it away, or "
                "name another folder with out="
            )
        print(f"{target} exists already; remove it to download it again", file=sys.stderr)
    else:
        with put_in_place(target, "name another folder with out=") as folder:
            archive = options.archive
            if archive is None:
                archive = folder.parent / "curves.zip"
                download(options.url, archive, title="released curves", advice=WITHOUT_NETWORK)
            elif not archive.is_file():
                raise UserError(f"archive={archive}: no such file")
            unpack(archive, RESULTS, folder)
            from analysis.records.load import load_curves  # here, because it imports pandas

            records = load_curves(folder, PUBLISHED)
            if records.table.empty:
                raise UserError(f"{archive}: contains no curves in {RESULTS}")
    _report_digest(target)
    print(target)
    return 0


def digest(folder: Path) -> tuple[int, str]:
    """Return the number of files `<method>/<task>.csv` and a checksum over all of them."""
    checksum = hashlib.sha256()
    files = sorted(folder.glob("*/*.csv"))
    for file in files:
        checksum.update(f"{file.relative_to(folder).as_posix()} {sha256_of(file)}\n".encode())
    return len(files), checksum.hexdigest()


def _report_digest(folder: Path) -> None:
    """Report whether the curves are the release that the project was checked with."""
    count, checksum = digest(folder)
    if checksum == KNOWN_DIGEST:
        print(f"{count} files, the release that this project was checked with", file=sys.stderr)
    else:
        print(
            f"warning: the {count} files differ from the {KNOWN_FILES} files that this project was "
            f"checked with (checksum {checksum[:12]}…, not {KNOWN_DIGEST[:12]}…)",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(command(main, usage))
