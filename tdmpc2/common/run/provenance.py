"""Provenance of results: commit, uncommitted changes, host and package versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tdmpc2.common.system.atomic_files import read_json, write_text
from tdmpc2.common.system.paths import project_root

PACKAGES = ("torch", "numpy", "gymnasium")
# File in a copy of the code that holds the commit and diff of the original checkout.
SNAPSHOT_FACTS = "source.json"


class Source(NamedTuple):
    """Version of the code that runs.

    Attributes:
        commit: commit of the checkout; None without git.
        diff: uncommitted changes, without untracked files; None without git.
    """

    commit: str | None
    diff: str | None


def source() -> Source:
    """Return the version of the checkout that the code runs from or was copied from."""
    copied = read_json(project_root() / SNAPSHOT_FACTS)
    if copied is not None:
        return Source(**copied)
    return Source(_git("rev-parse", "HEAD"), _git("diff", "HEAD", "--binary"))


def git_commit() -> str | None:
    """Return the commit of the code; None without git."""
    copied = read_json(project_root() / SNAPSHOT_FACTS)
    return _git("rev-parse", "HEAD") if copied is None else copied["commit"]


def provenance(simulators: Iterable[str] = (), details: Path | None = None) -> dict[str, Any]:
    """Return commit, uncommitted changes, host, Python version and package versions.

    Args:
        simulators: distributions whose versions are recorded, besides those of `PACKAGES`; None is
            recorded for those that are not installed.
        details: folder for the texts that the result names by checksum only: uncommitted changes
            as `<checksum>.diff`, all packages as `<checksum>.txt`. Equal texts are written once.
    """
    commit, diff = source()
    packages = _freeze()
    if details is not None:
        details.mkdir(exist_ok=True)
        for text, suffix in ((diff, "diff"), (packages, "txt")):
            path = details / f"{_checksum(text or '')}.{suffix}"
            if text and not path.exists():
                write_text(path, text)
    return {
        "commit": commit,
        "dirty": None if diff is None else bool(diff),
        "diff": _checksum(diff) if diff else None,
        "host": socket.gethostname(),
        "slurm_job": _slurm_job(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*PACKAGES, *simulators)},
        "all_packages": _checksum(packages),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project_root()), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def _slurm_job() -> str | None:
    """Return the job id as `squeue` shows it; None outside SLURM."""
    array, place = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    return f"{array}_{place}" if array else os.environ.get("SLURM_JOB_ID")


@cache
def _freeze() -> str:
    """Return every installed package with its version, like `pip freeze`."""
    found = {(d.metadata["Name"] or "", d.version) for d in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
