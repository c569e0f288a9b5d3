"""Verification of a bundle: checksums, and figures' numbers drawn again from the records."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tdmpc2.common.system.regular_files import regular

SUMS = "SHA256SUMS"
RECORDS, FIGURES = "records", "figures"
REPS = 1000
"""Number of simulated studies that measure the coverage of intervals."""
_DRAW = """
import sys
from analysis.make_figures import main, usage
from tdmpc2.common.system.cli import command
sys.exit(max(command(lambda _: main(one.split("\\n")), usage) for one in sys.argv[1:]))
"""
"""Program that computes the tables; each argument holds the options of one folder, in lines."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def files_of(folder: Path) -> list[str]:
    """Return the files of a bundle without its list of checksums, as sorted relative paths."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != SUMS)


def list_of_sums(folder: Path) -> str:
    """Return the content of the list of checksums, in the format of `sha256sum`."""
    return "".join(f"{sha256_of(folder / name)}  {name}\n" for name in files_of(folder))


def damages(folder: Path) -> Iterator[str]:
    """Yield what differs from the list of checksums.

    Raises:
        UserError: there is no list.
    """
    try:
        content = regular(folder / SUMS).read_bytes().decode()
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
        if sha256_of(folder / name) != listed[name]:
            yield f"{name}: checksum differs"


def draw_tables(folders: Mapping[Path, Path]) -> None:
    """Compute the numbers of all figures of folders of records.

    One process computes all of them, because importing the libraries takes most of the time.

    Args:
        folders: folder of the tables by folder of runs.

    Raises:
        UserError: the command fails.
    """
    with tempfile.TemporaryDirectory() as temporary:  # drawing writes a cache beside the runs
        lines = []
        for records, out in folders.items():
            copy = shutil.copytree(records, Path(temporary) / records.name)
            # Without the released curves, which are no part of the bundle.
            options = (f"runs={copy}", "published=none", f"out={out}", "tables=true")
            lines.append("\n".join([*options, f"reps={REPS}", "jobs=1"]))
        call([sys.executable, "-c", _DRAW, *lines])
    for out in folders.values():
        for path in out.iterdir():  # what names places on this machine, and drawings
            if path.suffix != ".csv" or path.name == "problems.csv":
                path.unlink()


def call(command: Sequence[str]) -> None:
    """Run a command of the project.

    Raises:
        UserError: it ends with an error.
    """
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise UserError((done.stderr.strip().splitlines() or ["?"])[-1].removeprefix("error: "))


def redrawn(folder: Path) -> Iterator[str]:
    """Draw the numbers of all figures again, and yield the tables that differ.

    Args:
        folder: the bundle.
    """
    with tempfile.TemporaryDirectory() as temporary:
        names = sorted(path.name for path in (folder / RECORDS).iterdir())
        draw_tables({folder / RECORDS / name: Path(temporary) / name for name in names})
        for name in names:
            kept, fresh = folder / FIGURES / name, Path(temporary) / name
            tables = {path.name for place in (kept, fresh) for path in place.iterdir()}
            for table in sorted(tables):
                pair = [place / table for place in (kept, fresh)]
                if not all(path.exists() for path in pair):
                    where = "bundle" if not pair[0].exists() else "new drawing"
                    yield f"{FIGURES}/{name}/{table}: missing in the {where}"
                elif pair[0].read_bytes() != pair[1].read_bytes():
                    yield f"{FIGURES}/{name}/{table}: numbers differ"
