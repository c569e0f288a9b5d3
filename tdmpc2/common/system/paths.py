"""Where the project's own folders lie, from whatever directory a command is started."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout this package runs from; the current directory for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def default_runs_dir() -> Path:
    """`runs/` of the checkout."""
    return project_root() / "runs"


def cache_dir() -> Path:
    """The project's folder below `$XDG_CACHE_HOME`, or below `~/.cache`."""
    # The XDG specification has relative paths ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "tdmpc2-repro"
