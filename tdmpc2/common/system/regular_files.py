"""Checks before files are read: named pipes and closed folders among records."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_RECORD = 1 << 30
"""Largest size of a text record, in bytes; a run of the longest budget writes a few megabytes."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def can_list(folder: Path) -> bool:
    """Return whether this user may list a folder and open what it holds.

    `Path.glob` passes over other folders without an error.
    """
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=effective)


def closed_folders(folder: Path, levels: int) -> list[Path]:
    """Return the folders, from `folder` to so many levels below it, that this user may not list."""
    if not can_list(folder):
        return [folder]
    if levels == 0:
        return []
    with os.scandir(folder) as entries:
        inside = sorted(entry.path for entry in entries if entry.is_dir())
    return [closed for path in inside for closed in closed_folders(Path(path), levels - 1)]


def regular(path: Path, largest: int | None = LARGEST_RECORD) -> Path:
    """Return a path whose file can be opened and read to its end.

    A named pipe keeps its reader waiting for ever, and a device may have no end. A folder or a
    missing file is left to the function that opens it, which raises an `OSError` of its own.

    Args:
        path: the file; links are followed.
        largest: largest size in bytes; None for any.

    Raises:
        OSError: it is a named pipe, a socket or a device, or it is too large.
    """
    try:
        found = os.stat(path)
    except OSError:
        return path
    what = _KINDS.get(stat.S_IFMT(found.st_mode))
    if what is not None:
        raise OSError(errno.EINVAL, f"{what}, not a file", str(path))
    if largest is not None and stat.S_ISREG(found.st_mode) and found.st_size > largest:
        what = f"{found.st_size:,} bytes, but at most {largest:,} are read"
        raise OSError(errno.EINVAL, what, str(path))
    return path
