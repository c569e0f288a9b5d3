"""Paths of the project's folders; they do not depend on the current directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from tdmpc2.common.system.errors import UserError

PACKAGES = ("tdmpc2", "baselines", "sweeps", "ablations", "analysis")
"""The packages of this project."""
SNAPSHOT_FACTS = "source.json"
"""File in a copy of the code that holds the version of the original."""


def project_root() -> Path:
    """Return the checkout that this package runs from.

    For a package installed from a wheel this is the current directory.

    Raises:
        UserError: the current directory no longer exists.
    """
    return packages_root() if is_checkout() else _current_folder()


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder no longer exists; change to another one (cd)") from None


def is_checkout() -> bool:
    """Return whether this package runs from a checkout or a copy of the code, not from a wheel."""
    root = packages_root()
    if root.name in ("site-packages", "dist-packages"):  # other packages may have put files there
        return False
    return any((root / name).is_file() for name in ("pyproject.toml", SNAPSHOT_FACTS))


def packages_root() -> Path:
    """Return the folder of this project's packages; that of a wheel holds others, too."""
    return Path(__file__).resolve().parents[3]


def importable() -> Path:
    """Return a folder with this project's packages and no others, for `PYTHONPATH`.

    Where the package is installed from a wheel, it holds links to them.
    """
    root = packages_root()
    if is_checkout():
        return root
    name = f"packages-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}-{os.getuid()}"
    folder = code_folder(cache_dir() / name, Path(tempfile.gettempdir()) / f"tdmpc2-{name}")
    for package in PACKAGES:
        with contextlib.suppress(FileExistsError):
            (folder / package).symlink_to(root / package)
    return folder


def default_runs_dir() -> Path:
    """Return the default folder of runs: `runs/` in the checkout."""
    return project_root() / "runs"


def recorded_folders() -> list[Path]:
    """Return the folders of `paper_figures/recorded`, records of runs that come with the checkout.

    Raises:
        UserError: there is no such folder, as in an installed package.
    """
    recorded = project_root() / "paper_figures" / "recorded"
    if not recorded.is_dir():
        raise UserError(f"{recorded} does not exist; name a folder of runs with runs=")
    return sorted(path for path in recorded.iterdir() if path.is_dir())


def cache_dir() -> Path:
    """Return the project's cache folder, in `$XDG_CACHE_HOME` or `~/.cache`.

    A user without a home, as in containers, has one in the folder of temporary files.
    """
    # The XDG specification requires that relative paths are ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "tdmpc2-repro"
    try:
        return Path.home() / ".cache" / "tdmpc2-repro"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"tdmpc2-repro-{os.getuid()}"


def code_folder(*candidates: Path) -> Path:
    """Return the first folder that holds only this user's code and from which it can run.

    Missing folders are created. The folder of temporary files is often mounted without execution,
    and other users can create folders there. Home directories may be read-only.

    Args:
        candidates: folders, the preferred one first; it is returned if none is suitable.
    """
    return next(filter(_runs_own_code, candidates), candidates[0])


def _runs_own_code(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found, disk = folder.lstat(), os.statvfs(folder)
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    executable = not disk.f_flag & getattr(os, "ST_NOEXEC", 0)  # Linux names the flag
    return own and executable and not found.st_mode & 0o022 and os.access(folder, os.W_OK)


def user_path(text: str, name: str) -> Path:
    """Return the absolute path that a user has given; `~` is replaced, links are not followed.

    Args:
        text: the path.
        name: option or environment variable that holds it, for the error message.

    Raises:
        UserError: the text is empty, the home of `~user` is unknown, or the path is relative to a
            current folder that no longer exists.
    """
    try:
        if text:
            path = Path(text).expanduser()
            return path if path.is_absolute() else _current_folder() / path
    except RuntimeError:
        pass
    raise UserError(f"{name}={text}: a path is needed")


def listed_paths(text: str, option: str) -> list[Path]:
    """Return the paths of a comma-separated list; the name of a single path may have commas.

    Args:
        text: paths, separated by commas; empty for none.
        option: option that the text is the value of, for messages.

    Raises:
        UserError: the home of `~user` is unknown.
    """
    # Not `Path.exists`, which raises an error if the list is longer than a name may be.
    if text and os.path.exists(whole := user_path(text, option)):
        return [whole]
    return [user_path(one, option) for one in text.split(",") if one]


def named_folders(text: str, option: str) -> list[Path]:
    """Return the folders of a comma-separated list; see `listed_paths`.

    Args:
        text: paths, separated by commas; empty for none.
        option: option that the text is the value of, for messages.

    Raises:
        UserError: a folder does not exist, or the home of `~user` is unknown.
    """
    folders = listed_paths(text, option)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{option}={folder} does not exist")
    return folders
