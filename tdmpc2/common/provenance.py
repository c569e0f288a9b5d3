"""Which code, on which machine, made a record."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
from typing import Any

from tdmpc2.common.paths import project_root

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "dm_control", "metaworld", "myosuite")


def git_commit() -> str | None:
    """Commit of the checkout the code runs from; None without git."""
    return _git("rev-parse", "HEAD")


def provenance() -> dict[str, Any]:
    """Commit, uncommitted changes, host, Python and package versions."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": git_commit(),
        "dirty": None if status is None else bool(status),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project_root()), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
