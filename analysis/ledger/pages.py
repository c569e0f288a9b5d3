"""Writing of the pages of the documentation that are made from recorded runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tdmpc2.common.system.atomic_files import cannot_write, write_atomic
from tdmpc2.common.system.errors import UserError


def write_page(path: Path, text: str) -> None:
    """Write a file and print its path.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(cannot_write(str(path), error)) from error
    print(path)


def rewrite_page(path: Path, option: str, change: Callable[[str], str]) -> None:
    """Change the text of a file and print its path.

    Args:
        path: the file.
        option: name of the option that gave it.
        change: returns the new text; raises ValueError if the old text does not suit.

    Raises:
        UserError: the file cannot be read, changed or written.
    """
    try:
        text = change(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{option}={path}: {error}") from error
    write_page(path, text)
