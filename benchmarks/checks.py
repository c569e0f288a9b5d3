"""Checks of the arguments of benchmarks, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Range, require
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config


def numbers(key: str, text: str, valid: Range) -> list[int]:
    """Return the numbers of a comma-separated list.

    Args:
        key: name of the option.
        text: its value.
        valid: range of each number.

    Raises:
        UserError: one is not a number, or out of range.
    """
    found = [cli.parse_value(key, part, int) for part in text.split(",")]
    for number in found:
        valid.check(key, number)
    return found


def check_sizes(sizes: Sequence[str]) -> None:
    """Check names of TD-MPC2's model sizes.

    Raises:
        UserError: a size is unknown.
    """
    for size in sizes:
        TDMPC2Config.make(model_size=size)


def check_file(key: str, path: Path | None) -> None:
    """Check that a file can be written, if there is one to write.

    Args:
        key: name of the option.
        path: its value.

    Raises:
        UserError: it is a folder, or its folder does not exist.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"{key}={path}: must be a file in a folder that exists")


def check_folder(key: str, path: Path | None) -> None:
    """Check that a folder exists, if there is one to read.

    Args:
        key: name of the option.
        path: its value.

    Raises:
        UserError: there is no such folder.
    """
    require(path is None or path.is_dir(), f"{key}={path}: is no folder")
