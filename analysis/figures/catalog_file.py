"""The file of the figure catalog, `paper_figures/figures.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root


def figures_dir() -> Path:
    """Return the default output folder; in a checkout it also holds the catalog and the style."""
    return project_root() / "paper_figures"


def shipped(name: str) -> Path:
    """Return the path of the catalog or the style, in the checkout or in the installed package."""
    path = figures_dir() / name
    return path if path.exists() else Path(__file__).with_name(name)


def catalog_path() -> Path:
    """Return the path of the shipped catalog."""
    return shipped("figures.toml")


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a catalog without validation; `read_catalog` validates them.

    Raises:
        UserError: If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def figure_titles() -> dict[str, str]:
    """Return the titles of the figures in the shipped catalog by name.

    Raises:
        UserError: If the catalog cannot be read or has no table `figures`.
    """
    path = catalog_path()
    try:
        return {name: table["title"] for name, table in read_tables(path)["figures"].items()}
    except KeyError as error:
        raise UserError(f"{path}: missing or unknown entry, {error}") from error
