"""Paths of the project's folders; they do not depend on the current directory."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """Return the checkout that this package runs from.

    For a package installed from a wheel this is the current directory.
    """
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def default_runs_dir() -> Path:
    """Return the default folder of runs: `runs/` in the checkout."""
    return project_root() / "runs"


def cache_dir() -> Path:
    """Return the project's cache folder, in `$XDG_CACHE_HOME` or `~/.cache`."""
    # The XDG specification requires that relative paths are ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "tdmpc2-repro"
