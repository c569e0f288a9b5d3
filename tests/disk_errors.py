"""Damage by disks and downloads.

Reads of `/proc/self/mem` end with a real EIO, since its first page is not mapped.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BROKEN = Path("/proc/self/mem")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Have reads of an existing file end with EIO inside the `with` block."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    path.symlink_to(BROKEN)
    try:
        yield
    finally:
        path.unlink()
        aside.rename(path)


def make_hole(path: Path, size: int = 64) -> str:
    """Overwrite the middle of the largest member of a zip archive with zeros; return its name."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    with open(path, "r+b") as file:
        file.seek(largest.header_offset + largest.file_size // 2)
        file.write(bytes(size))
    return largest.filename
