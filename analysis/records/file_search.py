"""Files below a folder, linked folders included."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the regular files below a folder whose names match a pattern, sorted.

    Links to folders are followed, each folder on a path once, so that a link to a folder above it
    has no effect. Folders that cannot be read are left out.

    Args:
        folder: the folder.
        pattern: pattern of file names in lower case, e.g. `*.csv`.
    """
    found: list[Path] = []
    above: dict[str, frozenset[tuple[int, int]]] = {}
    for name, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(name)
        here = (stat.st_dev, stat.st_ino)
        path = above.pop(name, frozenset())
        if here in path:
            folders.clear()
            continue
        above |= {os.path.join(name, below): path | {here} for below in folders}
        found += [Path(name, file) for file in files if fnmatch.fnmatchcase(file.lower(), pattern)]
    return sorted(path for path in found if path.is_file())
