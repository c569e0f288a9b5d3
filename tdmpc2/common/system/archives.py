"""Zip archives: checksums of their members, and safe extraction of one folder."""

from __future__ import annotations

import contextlib
import errno
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tdmpc2.common.system.atomic_files import full_disk
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import naming

WITHOUT_NETWORK = "download it on another machine and give the file with archive="
"""Advice for errors when an archive cannot be downloaded."""
MOST_GROWTH = 100
"""Largest ratio of the sizes after and before unpacking; text grows tenfold at most."""
_BLOCK = 1 << 20


def check_members(file: Path) -> None:
    """Check the checksums of all members of a zip archive, which `torch.load` does not.

    A download with holes of zeros, or a file with flipped bits, would else be read as it is.

    Args:
        file: the archive.

    Raises:
        UserError: a member is damaged.
    """
    refused = _damage_refused(file, "get the file again")
    with naming(file), refused, zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise UserError(
            f"{file}: damaged, the checksum of {damaged} does not match; get the file again"
        )


def unpack(file: Path, top: str, to: Path) -> None:
    """Extract one folder of a zip archive.

    Args:
        file: the archive.
        top: path of the folder in the archive; its components may be shell patterns.
        to: folder to extract to; it receives the contents of `top`.

    Raises:
        UserError: the archive is damaged, has no such folder, would become more than
            `MOST_GROWTH` times as large, or has a member that cannot be written, e.g. because its
            path leads outside the archive's folder.
    """
    parts = PurePosixPath(top).parts
    try:
        with _damage_refused(file, "download it again"), zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _refuse_unsafe(file, member.filename)
            inside = [m for m in members if _below(PurePosixPath(m.filename), parts)]
            if not inside:
                raise UserError(f"{file}: contains no folder '{top}'")
            size = sum(member.file_size for member in inside)  # `open` reads no more than that
            if size > MOST_GROWTH * file.stat().st_size:
                raise UserError(
                    f"{file}: would become {size / 1e9:.1f} GB, which no such archive does; "
                    "download it again"
                )
            for member in inside:
                path = to.joinpath(*PurePosixPath(member.filename).parts[len(parts) :])
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "xb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
    except OSError as error:  # two members of one path, a name that is too long
        if full_disk(error):
            raise
        reason = f"{error.strerror}: {error.filename}"
        raise UserError(f"{file}: cannot be unpacked ({reason}); download it again") from None


@contextlib.contextmanager
def _damage_refused(file: Path, advice: str) -> Iterator[None]:
    """Turn the errors of `zipfile` that mean a damaged archive into a `UserError`.

    Args:
        file: the archive.
        advice: end of the message.
    """
    try:
        yield
    # RuntimeError: encrypted, or compressed by a method that zipfile does not know. ValueError and
    # EINVAL: an offset that leads outside of the file.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise UserError(f"{file}: damaged archive ({error}); {advice}") from None


def _below(path: PurePosixPath, parts: tuple[str, ...]) -> bool:
    """Return whether an archive member lies inside the folder."""
    return len(path.parts) > len(parts) and all(map(fnmatchcase, path.parts, parts))


def _refuse_unsafe(file: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise UserError(f"{file}: unsafe archive, '{name}' would write outside its folder")
