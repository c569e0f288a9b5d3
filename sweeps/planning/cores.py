"""Divide the cores of this machine among the processes of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from sweeps.planning.costs import gflop_per_update
from sweeps.planning.planned_run import SeedGroup
from tdmpc2.common.run.schemas import NumericFile
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError

# A second thread makes a run of TD-MPC2 with 5M parameters (30 GFLOP per update) 1.25 to 1.8 times
# as fast; a second process on that core doubles the throughput. More threads, and smaller models
# than this, have not been measured.
FASTEST_THREADS = 2
LEAST_GFLOP = 10.0


class CoreUse(NamedTuple):
    """How the processes of a sweep share the cores.

    Attributes:
        threads: threads of each process.
        parallel: largest number of processes at a time.
    """

    threads: int
    parallel: int


def divide(
    groups: Sequence[SeedGroup], cores: int, threads: int | None, parallel: int | None
) -> CoreUse:
    """Return the division of the cores that is fastest for a whole sweep on CPUs.

    One thread per process and a process per core, unless cores would be idle: if there are two
    cores per process, each process of a model that is large enough gets two threads. All processes
    of the sweep count, also finished ones, so that another launch of it chooses the same.

    Args:
        groups: runs of each process of the sweep.
        cores: usable cores.
        threads: threads per process if they are given.
        parallel: largest number of processes at a time if it is given.
    """
    if threads is None:
        at_once = min(len(groups), parallel or len(groups))
        idle = cores >= FASTEST_THREADS * at_once
        threads = FASTEST_THREADS if idle and _all_large(groups) else 1
    return CoreUse(threads, parallel or max(cores // threads, 1))


def _all_large(groups: Sequence[SeedGroup]) -> bool:
    """Return whether a second thread makes the updates of all runs faster."""
    specs = [group[0].spec for group in groups]
    return all(not spec.tasks and gflop_per_update(spec) >= LEAST_GFLOP for spec in specs)


def threads_of(group: SeedGroup, threads: int) -> int:
    """Return the threads with which the runs of a process began; `threads` for new runs.

    A run resumes only with the number of threads that it began with.
    """
    for run in group:
        with contextlib.suppress(UserError):  # damaged: the process says so
            recorded = read_json(run.directory / "numeric.json", NumericFile)
            if recorded and isinstance(recorded.get("threads"), int):
                return recorded["threads"]
    return threads
