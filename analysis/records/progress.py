"""Progress of commands, shown on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show on a terminal what a command is doing until it is done.

    Args:
        what: the activity, as in "reading the runs".
    """
    with tqdm(total=0, desc=f"{what} …", bar_format="{desc}", leave=False, disable=None):
        yield


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Show a stage of a command that takes minutes: as `doing`, and elsewhere as a line.

    Args:
        what: the activity.
    """
    if not sys.stderr.isatty():
        print(f"{what} …", file=sys.stderr, flush=True)
    with doing(what):
        yield
