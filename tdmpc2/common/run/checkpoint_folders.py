"""Folders of the checkpoints of a run; needs no torch."""

from __future__ import annotations

from pathlib import Path

FOLDER = "checkpoints"
REPLACED = ".replaced"  # suffix of a checkpoint that one of the same step is about to replace


def existing_checkpoints(directory: Path) -> list[Path]:
    """Return the folders of all complete checkpoints of a run, oldest first.

    Args:
        directory: the run directory.
    """
    folder = directory / FOLDER
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.name.removesuffix(REPLACED).isdigit()]
    return sorted(found, key=lambda p: (agent_step(p), p.suffix != REPLACED))


def agent_step(checkpoint: Path) -> int:
    """Return the agent step (or number of updates) that names the folder of a checkpoint."""
    return int(checkpoint.name.removesuffix(REPLACED))
