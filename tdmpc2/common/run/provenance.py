"""Provenance of results: commit, uncommitted changes, host and package versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tdmpc2.common.run.source_version import SourceVersion
from tdmpc2.common.system.atomic_files import write_bytes

PACKAGES = ("torch", "numpy", "gymnasium")


def provenance(
    simulators: Iterable[str] = (),
    details: Path | None = None,
    elsewhere: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Return commit, uncommitted changes, host, Python version and package versions.

    Args:
        simulators: distributions whose versions are recorded, besides those of `PACKAGES`; None is
            recorded for those that are not installed.
        details: folder for the texts that the result names by checksum only: changes since the
            commit as `<checksum>.diff`, all packages as `<checksum>.txt`. Equal texts are written
            once. If the commit is unknown, a warning is printed.
        elsewhere: versions in other Pythons, which count instead of those of this Python.
    """
    commit, patch, unknown = SourceVersion.here()
    packages = _freeze()
    versions = {name: installed_version(name) for name in (*PACKAGES, *simulators)}
    if details is not None:
        if unknown is not None:
            print(
                f"warning: the version of the code is unknown ({unknown}); the records cannot name "
                "it, and a resume cannot notice that it has changed",
                file=sys.stderr,
            )
        details.mkdir(exist_ok=True)
        for content, suffix in ((patch, "diff"), (packages, "txt")):
            if content:
                path = details / f"{_checksum(content)}.{suffix}"
                if not path.exists():
                    write_bytes(path, content)
    return {
        "commit": commit,
        "dirty": None if patch is None else bool(patch),
        "diff": _checksum(patch) if patch else None,
        "host": socket.gethostname(),
        "slurm_job": _slurm_job(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {**versions, **(elsewhere or {})},
        "all_packages": _checksum(packages),
    }


def _slurm_job() -> str | None:
    """Return the job id as `squeue` shows it; None outside SLURM."""
    array, place = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    return f"{array}_{place}" if array else os.environ.get("SLURM_JOB_ID")


@cache
def _freeze() -> bytes:
    """Return every installed package with its version, like `pip freeze`."""
    metadata = [d.metadata for d in importlib.metadata.distributions()]  # parsed at each access
    found = {(m["Name"] or "", m["Version"]) for m in metadata}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found)).encode()


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def installed_version(package: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
