"""Where asset sets lie, and putting a whole folder in place at once."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdmpc2.common.errors import UserError
from tdmpc2.common.files import full_disk
from tdmpc2.common.paths import cache_dir


def default_asset_dir() -> Path:
    """Where sets are fetched to and looked for without `MS2_ASSET_DIR`."""
    return cache_dir() / "maniskill2"


def asset_dir() -> Path:
    """`$MS2_ASSET_DIR` if it is set, else the default folder."""
    named = os.environ.get("MS2_ASSET_DIR")
    return Path(named).expanduser().absolute() if named else default_asset_dir()


def standin_dir() -> Path:
    """Where stand-ins are built."""
    return cache_dir() / "maniskill2-standin"


def package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the package '{name}' is not installed, and files inside it are needed; "
            "install the project's requirements"
        )
    return Path(spec.submodule_search_locations[0])


@contextmanager
def put_in_place(target: Path) -> Iterator[Path]:
    """Yields an empty folder of the target's name; it becomes `target` when the block ends.

    After an error nothing is left. If another process has put something there
    meanwhile, that stays and this one's folder is dropped.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
        )
    except OSError as error:
        if full_disk(error):
            raise
        raise UserError(
            f"{target.parent}: cannot be written ({error.strerror}); set MS2_ASSET_DIR "
            "(XDG_CACHE_HOME for stand-ins) to a folder that can be"
        ) from None
    with scratch:
        # A folder of its own, since the temporary one is readable by its owner only.
        folder = Path(scratch.name) / target.name
        folder.mkdir()
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
