"""The lease that lets one command at a time submit or cancel the SLURM jobs of a folder of runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.run.lock import InUseError, Lease

# How long a command waits while another one submits its jobs.
PATIENCE_SECONDS = 120.0


@contextlib.contextmanager
def submission_lease(folder: Path) -> Iterator[None]:
    """Hold the lease; wait until it is free.

    Args:
        folder: folder of all sweeps, `<runs>/sweeps`.

    Raises:
        InUseError: another command still holds it after `PATIENCE_SECONDS`.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(Lease(folder))
                break
            except InUseError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield
