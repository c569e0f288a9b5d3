"""Create a run directory and hold its lease; a run that does not begin leaves nothing there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.run.lock import Lease
from tdmpc2.common.system.errors import UserError


@contextlib.contextmanager
def held(directory: Path) -> Iterator[Lease]:
    """Create a run directory if it is missing, and hold its lease inside the `with` block.

    A run begins when its state is written. If an error ends the block before that, because the run
    is refused for example, the files that the block has added are removed, and so are the folders
    that were created: other commands would read them as a run.

    Args:
        directory: the run directory.

    Raises:
        UserError: the directory cannot be created, or another process holds the lease.
    """
    created = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        _create(directory)
        with Lease(directory) as lease, _removed_unless_begun(directory, lease):
            yield lease
    except BaseException:
        with contextlib.suppress(OSError):  # not empty
            for path in created:
                path.rmdir()
        raise


def _create(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be created ({error.strerror}); use another folder with runs="
        ) from None


@contextlib.contextmanager
def _removed_unless_begun(directory: Path, lease: Lease) -> Iterator[None]:
    """Remove what the `with` block has added if an error ends it and the run has no state."""
    found = set(os.listdir(directory))
    try:
        yield
    except BaseException:
        if not lease.lost and not (directory / "status.json").exists():
            for name in set(os.listdir(directory)) - found:
                path = directory / name
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
