"""Downloading a file, unpacking part of an archive safely, putting a folder in place at once."""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from tdmpc2.common.system.atomic_files import full_disk
from tdmpc2.common.system.errors import UserError

_TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20


def download(url: str, file: Path, title: str) -> None:
    """Downloads with a progress bar.

    Args:
        url: of the file.
        file: where it goes.
        title: for the progress bar.

    Raises:
        UserError: no network, no such file there, or less of it than announced.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length")
            bar = tqdm(
                desc=title,
                total=int(length) if length else None,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                leave=False,
                disable=None,  # only on a terminal
            )
            with bar, open(file, "wb") as out:
                while block := response.read(_BLOCK):
                    out.write(block)
                    bar.update(len(block))
        if length and file.stat().st_size != int(length):
            raise http.client.IncompleteRead(b"", int(length) - file.stat().st_size)
    except (OSError, http.client.HTTPException) as error:
        if full_disk(error):
            raise
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"cannot download {url} ({reason}); download it elsewhere and pass it on with archive="
        ) from None


def unpack(file: Path, top: str, to: Path) -> None:
    """Unpacks one folder of a zip archive; everything else in it is left out.

    Args:
        file: the archive.
        top: path of the folder in the archive; its parts may be shell patterns.
        to: what the folder becomes.

    Raises:
        UserError: a damaged archive, one without that folder, or with a member that would be
            written outside its folder.
    """
    parts = PurePosixPath(top).parts
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _refuse_unsafe(file, member.filename)
            inside = [m for m in members if _below(PurePosixPath(m.filename), parts)]
            if not inside:
                raise UserError(f"{file}: holds no folder '{top}'")
            for member in inside:
                path = to.joinpath(*PurePosixPath(member.filename).parts[len(parts) :])
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{file}: a damaged archive ({error})") from None


@contextmanager
def put_in_place(target: Path, advice: str) -> Iterator[Path]:
    """Yields an empty folder of the target's name; it becomes `target` when the block ends.

    After an error nothing is left. If another process has put something there
    meanwhile, that stays and this one's folder is dropped.

    Args:
        target: the folder to be.
        advice: what to do where it cannot be written, for the error.

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
            f"{target.parent}: cannot be written ({error.strerror}); {advice}"
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


def _below(path: PurePosixPath, parts: tuple[str, ...]) -> bool:
    """Whether a member lies in the folder."""
    return len(path.parts) > len(parts) and all(map(fnmatchcase, path.parts, parts))


def _refuse_unsafe(file: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise UserError(f"{file}: refused, since it would write outside its folder ('{name}')")
