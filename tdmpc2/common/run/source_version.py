"""Version of the code that runs: its commit and the changes since, as a patch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.paths import SNAPSHOT_FACTS, is_checkout, project_root

# The user's configuration of git must not change the patch: these options come before it.
PATCH = (
    *("diff", "HEAD", "--binary", "--full-index", "--unified=3", "--inter-hunk-context=0"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=none"),
)
CODE_SUFFIXES = (".py", ".cpp", ".h", ".cu", ".toml", ".sh")


class SourceVersion(NamedTuple):
    """Version of the code that runs.

    Attributes:
        commit: commit of the checkout; None if it is unknown.
        patch: changes since the commit, with new files of code, for `git apply`; None if unknown.
        unknown: why the version is unknown; None if it is known.
    """

    commit: str | None
    patch: bytes | None
    unknown: str | None = None

    @classmethod
    def here(cls) -> SourceVersion:
        """Return the version of the checkout that the code runs from or was copied from."""
        copied = _copied()
        if copied is not None:
            text = copied["diff"]
            patch = None if text is None else text.encode("utf-8", "surrogateescape")
            return cls(copied["commit"], patch)
        try:
            return cls(_commit(), _git(*PATCH) + _new_files())
        except GitError as error:
            return cls(None, None, str(error))

    def write(self, folder: Path) -> None:
        """Write the version to a copy of the code, for `here` of the processes that run there."""
        text = None if self.patch is None else self.patch.decode("utf-8", "surrogateescape")
        write_json(folder / SNAPSHOT_FACTS, {"commit": self.commit, "diff": text})


class GitError(Exception):
    """Git does not answer; the message gives the reason."""


def git_commit() -> str | None:
    """Return the commit of the code; None if it is unknown."""
    copied = _copied()
    try:
        return _commit() if copied is None else copied["commit"]
    except GitError:
        return None


def _copied() -> dict[str, Any] | None:
    return read_json(project_root() / SNAPSHOT_FACTS) if is_checkout() else None


def _commit() -> str:
    """Return the commit of the project's own repository."""
    if not is_checkout():  # the current folder may be a repository of the user
        raise GitError("the package is installed, without a checkout")
    top = Path(os.fsdecode(_git("rev-parse", "--show-toplevel").rstrip(b"\n")))
    if top.resolve() != project_root().resolve():
        raise GitError(f"{project_root()} is not a repository of its own, only a part of {top}")
    return _git("rev-parse", "HEAD").decode().strip()


def _new_files() -> bytes:
    """Return a patch that adds the untracked files of code, all but ignored ones."""
    # Not `--exclude-standard`, which also obeys the user's own list.
    listed = _git("ls-files", "--others", "--exclude-per-directory=.gitignore", "-z")
    tracked = _git("ls-files", "-z")
    folders = {name.partition(b"/")[0] for name in tracked.split(b"\0") if name.endswith(b".py")}
    options = [option for option in PATCH if option != "HEAD"]
    patch = b""
    for name in map(os.fsdecode, sorted(listed.split(b"\0"))):
        top, _, rest = name.partition("/")
        if name.endswith(CODE_SUFFIXES) and (not rest or os.fsencode(top) in folders):
            patch += _git(*options, "--no-index", "--", os.devnull, name, expected=1)
    return patch


def _git(*arguments: str, expected: int = 0) -> bytes:
    """Return the output of git in the project.

    Raises:
        GitError: git is missing, or fails.
    """
    root = project_root()
    # A checkout of another user, as in containers, may be read; `GIT_DIR` and the like must not
    # point elsewhere.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), "-c", f"safe.directory={root}", "-c", "core.quotePath=true"]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, env={**environment, "LC_ALL": "C"}
        )
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror})") from None
    if done.returncode != expected:
        reason = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise GitError(reason or f"git {arguments[0]} failed with code {done.returncode}")
    return done.stdout
