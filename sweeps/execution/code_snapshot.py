"""Copy the code for queued jobs, so that later edits do not affect them."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.run.source_version import SourceVersion

PACKAGES = ("tdmpc2", "baselines", "sweeps", "ablations", "analysis")
OTHERS = ("pyproject.toml", "paper_figures/*.toml", "paper_figures/*.mplstyle")
IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def take(root: Path, folder: Path) -> Path:
    """Copy the code, unless an identical copy exists.

    Args:
        root: root folder of the checkout.
        folder: folder of all copies.

    Returns:
        Folder of the copy, named by a hash of its content. It holds all packages, the commit and
        the uncommitted changes.
    """
    files = sorted(code_files(root))
    version = SourceVersion.here()
    digest = hashlib.sha256(repr(version.commit).encode() + (version.patch or b""))
    for path in files:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    copy = folder / digest.hexdigest()[:12]
    if copy.is_dir():
        return copy
    partial = folder / f".{copy.name}.{uuid.uuid4().hex}.tmp"
    for path in files:
        target = partial / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    version.write(partial)
    try:
        os.rename(partial, copy)
    except OSError:  # a concurrent launch has created the same copy
        shutil.rmtree(partial)
        if not copy.is_dir():
            raise
    return copy


def code_files(root: Path) -> Iterator[Path]:
    """Yield every file of the packages, and the definitions and styles of the figures."""
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and not IGNORED.intersection(path.parts) and path.suffix != ".pyc":
                yield path
    for pattern in OTHERS:
        yield from root.glob(pattern)
