"""Room of the question how many cores there are to use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; a SLURM job is held to some of the machine's."""
    linux = hasattr(os, "sched_getaffinity")  # only Linux says
    return len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
