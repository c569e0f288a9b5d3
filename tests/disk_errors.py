"""Files whose every read ends with a real EIO: `/proc/self/mem`, whose first page is not mapped."""

from __future__ import annotations

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
