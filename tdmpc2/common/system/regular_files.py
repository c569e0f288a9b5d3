"""Check of files before they are read: a named pipe among records must not stop a command."""

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
