"""Where asset sets lie."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir

ADVICE = "set MS2_ASSET_DIR (XDG_CACHE_HOME for stand-ins) to a folder that can be"
"""What to do where a set cannot be written."""


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
