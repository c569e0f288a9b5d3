"""Errors of disks, file servers and limits, which say nothing about the content of a file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterator
from pathlib import Path

from tdmpc2.common.system.errors import UserError, chain

LIMITS = (errno.EMFILE, errno.ENFILE)
"""Errors of a process, or a machine, with too many open files."""
_OF_DISKS = (errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENOTCONN, errno.ETIMEDOUT)
_OF_RIGHTS = (errno.EACCES, errno.EPERM)


class UnreadableError(UserError):
    """A file cannot be read at present, so that its content is unknown; it may be intact."""


def cause_of(error: BaseException | None, numbers: Collection[int]) -> OSError | None:
    """Return the `OSError` with one of some error numbers that caused an error, or None.

    `torch.save`, for example, raises a `RuntimeError` of its own.
    """
    found = (one for one in chain(error) if isinstance(one, OSError) and one.errno in numbers)
    return next(found, None)


def disk_error(error: BaseException) -> OSError | None:
    """Return the `OSError` of a disk or a file server, which may pass, that caused an error."""
    return cause_of(error, _OF_DISKS)


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error of a file that could not be read.

    Args:
        path: the file.
        error: the error of the file system.

    Returns:
        An `UnreadableError` if the file may be intact, which its message then does not deny.
    """
    text = f"{error.filename or path}: cannot be read ({error.strerror or error})"
    if not is_unknown(error):
        return UserError(text)
    return UnreadableError(text if error.errno in _OF_RIGHTS else f"{text}; {advice(error)}")


def is_unknown(error: OSError) -> bool:
    """Return whether a file that could not be read may be intact.

    If not, the error says what its path is: a folder, a named pipe, a loop of links.
    """
    return error.errno in (*LIMITS, *_OF_DISKS, *_OF_RIGHTS, errno.ENOMEM)


def advice(error: OSError) -> str:
    """Return what to do about an error of the file system."""
    if error.errno in _OF_DISKS:
        return "check the disk or the file server, and run the same command again"
    if error.errno in LIMITS:
        return "raise the limit of open files (`ulimit -n`), and run the same command again"
    return "make it usable, or name another path"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path of a file to errors of the `with` block that name none: those of reads."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
