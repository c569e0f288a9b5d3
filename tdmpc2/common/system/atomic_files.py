"""Atomic writes: after a crash, a kill or a full disk, the old or the new file is complete."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import cause_of, naming, unreadable
from tdmpc2.common.system.regular_files import regular

PROBE_BYTES = 1 << 16
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk(error: BaseException | None) -> OSError | None:
    """Return the `OSError` of a full disk, quota or size limit that caused an error, or None."""
    return cause_of(error, DISK_FULL)


def lacks_space(folder: Path) -> bool:
    """Return whether the disk or quota of a folder is full, found by writing `PROBE_BYTES`.

    It is not known, and the result is False, if the folder is missing or not writable.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return full_disk(error) is not None
    return False


def cannot_write(what: str, error: OSError) -> str:
    """Return the message of an error by which output cannot be written.

    Args:
        what: what was to be written, e.g. its path.
        error: the error of the file system.
    """
    reason = error.strerror or str(error)
    place = f" ({error.filename})" if error.filename else ""
    advice = "free some space" if full_disk(error) else "name another place with out="
    return f"cannot write {what}: {reason}{place}; {advice}, and run it again"


def check_output(path: Path) -> None:
    """Check that a file can be written, before any work is done; create its folder.

    Raises:
        UserError: it cannot.
    """
    if path.is_dir():
        raise UserError(f"out={path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}); name another file"
        ) from None


def fsync_directory(path: Path) -> None:
    """Flush a directory to disk, so that renames inside it survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """Return a new name beside `path` for what is renamed to it when it is complete.

    It has no process id, which processes in two containers may share.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file beside `path` and rename it to `path`; on an error nothing changes.

    Args:
        path: the final file.
        write: function that is called with the open binary file and writes its content.
    """
    temporary = temporary_beside(path)
    try:
        with naming(path), open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomic(path, lambda file: file.write(content))


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
    created = [folder for folder in target.parents if not os.path.lexists(folder)]
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
    try:
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
    except BaseException:
        with suppress(OSError):  # other processes may use these folders by now
            for folder in created:
                folder.rmdir()
        raise


def read_json(path: Path, content: Any = Any) -> Any:
    """Read a JSON file; return None if the file does not exist.

    Args:
        path: the file.
        content: type of its content, e.g. a `TypedDict`; further keys are allowed and returned.

    Raises:
        UnreadableError: the file cannot be read at present; it may be intact.
        UserError: it is not a file, not valid JSON, or has another content.
    """
    try:
        value = json.loads(regular(path).read_bytes())
        msgspec.convert(value, content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        failure = unreadable(path, error)
        raise failure from None
    # Invalid UTF-8, invalid JSON, another content, or thousands of nested brackets.
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or move it away") from None
    return value


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files that killed processes left in the folders.

    Call it only if no other process writes to these folders, e.g. while holding the lease.
    """
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal text."""
    with naming(path), open(regular(path, None), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
