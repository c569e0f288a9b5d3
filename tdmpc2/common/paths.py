"""Where the project's own folders lie, from whatever directory a command is started."""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """The checkout this package runs from; the current directory for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def default_runs_dir() -> Path:
    """`runs/` of the checkout."""
    return project_root() / "runs"
