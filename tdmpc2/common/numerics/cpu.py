"""What the system tells about the CPU."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path


@functools.cache
def cpu_field(name: str) -> str:
    """A field of the first core in `/proc/cpuinfo`; empty on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            field, _, value = line.partition(":")
            if field.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def cpu_model() -> str:
    """The CPU's name."""
    return cpu_field("model name") or platform.processor() or platform.machine()


@functools.cache
def cpu_flags() -> tuple[str, ...]:
    """The instruction sets it has, sorted; empty where the system does not tell."""
    return tuple(sorted((cpu_field("flags") or cpu_field("Features")).split()))


def cpu_flags_hash() -> str:
    """A short name for this set of flags."""
    return hashlib.sha256(" ".join(cpu_flags()).encode()).hexdigest()[:12]


def usable_cores() -> int:
    """Cores that this process may use; a SLURM job is held to some of the machine's."""
    linux = hasattr(os, "sched_getaffinity")  # only Linux says
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    # Not every cluster binds a job to the cores that it was given.
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdigit() and int(given) else cores
