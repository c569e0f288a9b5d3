"""Copy the code for queued jobs, so that later edits do not affect them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tdmpc2.common.run.source_version import SourceVersion
from tdmpc2.common.system.atomic_files import temporary_beside
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import PACKAGES, project_root

OTHERS = ("pyproject.toml", "paper_figures/*.toml", "paper_figures/*.mplstyle")
IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def take(root: Path, folder: Path) -> Path:
    """Copy the code, unless an identical copy exists.

    Args:
        root: folder of the packages: the checkout, or where the wheel is installed.
        folder: folder of all copies.

    Returns:
        Folder of the copy, named by a hash of its content. It holds all packages, the commit and
        the uncommitted changes. If another user has made such a copy, which jobs would refuse, the
        name also contains the id of this user.
    """
    version = SourceVersion.here()
    digest = _digest(root, version)
    copy = folder / digest
    if copy.is_dir() and _is_of_others(copy):
        copy = folder / f"{digest}.{os.getuid()}"
    if copy.is_dir() and _digest(copy, version) == digest:
        return copy
    shutil.rmtree(copy, ignore_errors=True)  # damaged
    partial = temporary_beside(copy)
    for path in code_files(root):
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


def verify(copy: Path) -> None:
    """Check that this process runs the code of a copy, and that the copy is unchanged.

    Raises:
        UserError: the code comes from elsewhere, or the copy has changed since the launch.
    """
    if project_root() != copy.resolve():
        raise UserError(
            f"{copy}: the job does not run this copy of the code, but {project_root()}; the copy "
            "was deleted or moved since the launch: launch again"
        )
    if _digest(copy, SourceVersion.here()) != copy.name.partition(".")[0]:
        raise UserError(f"{copy}: the code has changed since the launch; launch again")


def _digest(root: Path, version: SourceVersion) -> str:
    """Return a short hash of the version and of every file of the code."""
    digest = hashlib.sha256(repr(version.commit).encode() + (version.patch or b""))
    for path in sorted(code_files(root)):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _is_of_others(copy: Path) -> bool:
    """Return whether another user than root owns a file of a copy, or may write it."""
    stats = [path.stat() for path in (copy, *copy.rglob("*"))]
    return any(s.st_uid not in (os.getuid(), 0) or s.st_mode & 0o002 for s in stats)


def code_files(root: Path) -> Iterator[Path]:
    """Yield every file of the packages, and the definitions and styles of the figures."""
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and not IGNORED.intersection(path.parts) and path.suffix != ".pyc":
                yield path
    for pattern in OTHERS:
        yield from root.glob(pattern)
