"""Options of the commands that write pages of the documentation from recorded runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analysis.records.source_options import RECORDED, chosen_folders, released_curves
from tdmpc2.common.system.atomic_files import write_atomic
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import user_path


@dataclass(frozen=True)
class RecordOptions(Settings):
    """Where runs and released curves lie."""

    runs: str = setting("", "folders of runs, DIR,DIR; default: runs/ in the checkout")
    recorded: bool = setting(False, RECORDED)
    published: Path | None = setting(
        None,
        "learning curves released by the authors of the paper; default: $TDMPC2_PUBLISHED or those "
        "that `python analysis/fetch_published.py` has downloaded, if there are any",
    )

    def folders(self) -> list[Path]:
        """Return the folders of runs.

        Raises:
            UserError: a folder does not exist, or both `runs` and `recorded` are given.
        """
        named = [user_path(one, "runs") for one in self.runs.split(",") if one]
        for folder in named:
            if not folder.is_dir():
                raise UserError(f"runs={folder} does not exist")
        return chosen_folders(named, recorded=self.recorded)

    def released(self) -> Path | None:
        """Return the folder of the released curves; None if there is none.

        Raises:
            UserError: the named folder does not exist.
        """
        if self.published is not None and not self.published.is_dir():
            raise UserError(f"published={self.published} does not exist")
        folder = self.published or released_curves()
        return folder if folder.is_dir() else None


def write_page(path: Path, text: str) -> None:
    """Write a file and print its path.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
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
