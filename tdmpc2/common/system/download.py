"""Download of files, safe extraction of one folder of an archive, atomic creation of folders."""

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
    """Download a file with a progress bar.

    Args:
        url: URL of the file.
        file: path to write to.
        title: label of the progress bar.

    Raises:
        UserError: there is no network, the server has no such file, or the download is shorter
            than announced.
        OSError: the disk is full.
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
                disable=None,  # shown on a terminal only
            )
            with bar, open(file, "wb") as out:
                while block := response.read(_BLOCK):
                    out.write(block)
                    bar.update(len(block))
        if length:
            _check_complete(file, int(length))
    except (OSError, http.client.HTTPException) as error:
        if full_disk(error):
            raise
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"cannot download {url} ({reason}); download it on another machine and give the file "
            "with archive="
        ) from None


def _check_complete(file: Path, length: int) -> None:
    missing = length - file.stat().st_size
    if missing:
        raise http.client.IncompleteRead(b"", missing)


def unpack(file: Path, top: str, to: Path) -> None:
    """Extract one folder of a zip archive.

    Args:
        file: the archive.
        top: path of the folder in the archive; its components may be shell patterns.
        to: folder to extract to; it receives the contents of `top`.

    Raises:
        UserError: the archive is damaged, has no such folder, or has a member whose path leads
            outside the archive's folder.
    """
    parts = PurePosixPath(top).parts
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _refuse_unsafe(file, member.filename)
            inside = [m for m in members if _below(PurePosixPath(m.filename), parts)]
            if not inside:
                raise UserError(f"{file}: contains no folder '{top}'")
            for member in inside:
                path = to.joinpath(*PurePosixPath(member.filename).parts[len(parts) :])
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{file}: damaged archive ({error}); download it again") from None


@contextmanager
def put_in_place(target: Path, advice: str) -> Iterator[Path]:
    """Yield an empty temporary folder that is renamed to `target` when the block ends.

    After an error nothing is left behind. If another process has created `target` in the
    meantime, that folder stays and the temporary one is removed.

    Args:
        target: the final folder.
        advice: text for the error message, what to do if the folder cannot be written.

    Raises:
        UserError: the parent folder cannot be written.
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
        # A subfolder, since only the owner may read the temporary folder itself.
        folder = Path(scratch.name) / target.name
        folder.mkdir()
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def _below(path: PurePosixPath, parts: tuple[str, ...]) -> bool:
    """Return whether an archive member lies inside the folder."""
    return len(path.parts) > len(parts) and all(map(fnmatchcase, path.parts, parts))


def _refuse_unsafe(file: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise UserError(f"{file}: unsafe archive, '{name}' would write outside its folder")
