"""Folders of the asset sets."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir, user_path

ADVICE = "set MS2_ASSET_DIR (XDG_CACHE_HOME for stand-ins) to a folder that can be written"
"""Advice for errors when a set cannot be written."""


def default_asset_dir() -> Path:
    """Return the folder of fetched sets if `MS2_ASSET_DIR` is not set."""
    return cache_dir() / "maniskill2"


def asset_dir() -> Path:
    """Return `$MS2_ASSET_DIR` if it is set, else the default folder."""
    named = os.environ.get("MS2_ASSET_DIR")
    return user_path(named, "MS2_ASSET_DIR") if named else default_asset_dir()


def standin_dir() -> Path:
    """Return the folder in which stand-ins are built."""
    return cache_dir() / "maniskill2-standin"


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the package '{name}' is not installed, but files inside it are needed; "
            "install the project's requirements"
        )
    return Path(spec.submodule_search_locations[0])
