"""Progress of commands, shown on stderr if it is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show what a command is doing until it is done.

    Args:
        what: the activity, as in "reading the runs".
    """
    with tqdm(total=0, desc=f"{what} …", bar_format="{desc}", leave=False, disable=None):
        yield
