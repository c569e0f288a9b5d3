"""Verification of a bundle: checksums, and figures' numbers drawn again from the records."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.system.errors import UserError

SUMS = "SHA256SUMS"
RECORDS, FIGURES = "records", "figures"
REPS = 1000
"""Number of simulated studies that measure the coverage of intervals."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def checksum(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[str]:
    """Return the files of a bundle without its list of checksums, as sorted relative paths."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != SUMS)


def list_of_sums(folder: Path) -> str:
    """Return the content of the list of checksums, in the format of `sha256sum`."""
    return "".join(f"{checksum(folder / name)}  {name}\n" for name in files_of(folder))


def damages(folder: Path) -> Iterator[str]:
    """Yield what differs from the list of checksums.

    Raises:
        UserError: there is no list.
    """
    try:
        content = (folder / SUMS).read_bytes().decode()
    except FileNotFoundError:
        raise UserError(f"{folder}: no bundle, the file {SUMS} is missing") from None
    except UnicodeDecodeError:
        yield f"{SUMS}: not text"
        return
    listed = {}
    for number, line in enumerate(content.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            yield f"{SUMS}:{number}: not a checksum and a path"
        else:
            listed[match[2]] = match[1]
    if not content.endswith("\n") or list(listed) != sorted(listed):
        yield f"{SUMS}: not sorted, or incomplete"
    present = set(files_of(folder))
    yield from (f"{name}: missing" for name in sorted(listed.keys() - present))
    yield from (f"{name}: not in {SUMS}" for name in sorted(present - listed.keys()))
    for name in sorted(present & listed.keys()):
        if checksum(folder / name) != listed[name]:
            yield f"{name}: checksum differs"


def draw_tables(records: Path, out: Path) -> None:
    """Compute the numbers of all figures of a folder of records.

    Args:
        records: folder of runs.
        out: folder of the tables.

    Raises:
        UserError: the command fails.
    """
    with tempfile.TemporaryDirectory() as temporary:  # drawing writes a cache beside the runs
        copy = Path(shutil.copytree(records, Path(temporary) / records.name))
        options = [f"runs={copy}", f"out={out}", "tables=true", f"reps={REPS}"]
        command = [sys.executable, "-m", "analysis.make_figures", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise UserError(f"{records}: {done.stderr.strip().removeprefix('error: ')}")
    for path in out.iterdir():  # what names places on this machine, and drawings
        if path.suffix != ".csv" or path.name == "problems.csv":
            path.unlink()


def redrawn(folder: Path) -> Iterator[str]:
    """Draw the numbers of all figures again, and yield the tables that differ.

    Args:
        folder: the bundle.
    """
    for records in sorted((folder / RECORDS).iterdir()):
        kept = folder / FIGURES / records.name
        with tempfile.TemporaryDirectory() as temporary:
            fresh = Path(temporary)
            draw_tables(records, fresh)
            names = {path.name for place in (kept, fresh) for path in place.iterdir()}
            for name in sorted(names):
                pair = [place / name for place in (kept, fresh)]
                if not all(path.exists() for path in pair):
                    where = "bundle" if not pair[0].exists() else "new drawing"
                    yield f"{FIGURES}/{records.name}/{name}: missing in the {where}"
                elif pair[0].read_bytes() != pair[1].read_bytes():
                    yield f"{FIGURES}/{records.name}/{name}: numbers differ"
