"""How many cores there are to use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; a SLURM job is held to some of the machine's."""
    linux = hasattr(os, "sched_getaffinity")  # only Linux says
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    # Not every cluster binds a job to the cores that it was given.
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdigit() and int(given) else cores
