"""A copy of the code for queued jobs, so that they do not see later edits."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.run.provenance import SNAPSHOT_FACTS, source
from tdmpc2.common.system.atomic_files import write_json

PACKAGES = ("tdmpc2", "baselines", "sweeps", "ablations", "analysis")
OTHERS = ("pyproject.toml", "paper_figures/*.toml", "paper_figures/*.mplstyle")
IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def take(root: Path, folder: Path) -> Path:
    """Copies the code, unless the same code has been copied before.

    Args:
        root: of the checkout.
        folder: of all copies.

    Returns:
        The copy, named by its content: all packages, with commit and uncommitted changes.
    """
    files = sorted(code_files(root))
    facts = source()
    digest = hashlib.sha256(repr(facts.commit).encode() + (facts.diff or "").encode())
    for path in files:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    copy = folder / digest.hexdigest()[:12]
    if copy.is_dir():
        return copy
    growing = folder / f".{copy.name}.{uuid.uuid4().hex}.tmp"
    for path in files:
        target = growing / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_json(growing / SNAPSHOT_FACTS, facts._asdict())
    try:
        os.rename(growing, copy)
    except OSError:  # another launch has just made the same copy
        shutil.rmtree(growing)
        if not copy.is_dir():
            raise
    return copy


def code_files(root: Path) -> Iterator[Path]:
    """Every file of the packages, and how figures are defined and look."""
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and not IGNORED.intersection(path.parts) and path.suffix != ".pyc":
                yield path
    for pattern in OTHERS:
        yield from root.glob(pattern)
