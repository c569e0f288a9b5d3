"""Properties of the CPU: model, instruction sets, usable cores."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

# Beginnings of the names of instruction sets for arithmetic, on x86 and ARM.
ARITHMETIC = (
    *("mmx", "sse", "ssse", "avx", "fma", "f16c", "amx"),
    *("asimd", "neon", "vfp", "sve", "bf16", "i8mm"),
)


@functools.cache
def cpu_field(name: str) -> str:
    """Return a field of the first core in `/proc/cpuinfo`; empty on other systems than Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def cpu_model() -> str:
    """Return the name of the CPU."""
    return cpu_field("model name") or platform.processor() or platform.machine()


@functools.cache
def cpu_flags() -> tuple[str, ...]:
    """Return the CPU's instruction sets, sorted; empty if the system does not list them."""
    return tuple(sorted((cpu_field("flags") or cpu_field("Features")).split()))


def instruction_sets() -> str:
    """Return the CPU's instruction sets for arithmetic, separated by blanks.

    Other flags, such as those of mitigations, change with the kernel and the microcode.
    """
    return " ".join(flag for flag in cpu_flags() if flag.startswith(ARITHMETIC))


def cpu_flags_hash() -> str:
    """Return a short hash of all flags of the CPU."""
    return hashlib.sha256(" ".join(cpu_flags()).encode()).hexdigest()[:12]


def usable_cores() -> int:
    """Return the number of cores that this process may use; a SLURM job gets part of a machine."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    # Not every cluster binds a job to its allocated cores.
    allocated = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(allocated)) if allocated.isdigit() and int(allocated) else cores
