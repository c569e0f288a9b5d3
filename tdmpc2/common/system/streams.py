"""Standard streams of a command: a lost terminal, reader or disk must not end its work."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

# The reader of a pipe has exited, or the terminal is gone: nothing is missing.
READER_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET)


def open_closed_streams() -> None:
    """Connect those of the descriptors 0, 1 and 2 that are closed to the null device.

    Otherwise the next files that are opened, such as records of a run, would get these descriptors
    and receive what libraries print.
    """
    for descriptor in (0, 1, 2):  # `os.open` returns the lowest free one
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)  # open to the end
            null = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, null)
            setattr(sys, f"__{name}__", null)


class LastingFile(io.FileIO):
    """A standard stream whose write errors are kept instead of raised.

    After an error, the stream is connected to the null device.

    Args:
        descriptor: its file descriptor, which stays open.

    Attributes:
        error: the first error; None before that.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write everything; wait if the stream is full and does not block."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                written = super().write(rest)
                if written is None:
                    select.select([], [self.fileno()], [])
                rest = rest[written or 0 :]
        except OSError as error:
            self.error = self.error or error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
        return size


def make_lasting() -> None:
    """Replace standard output and standard error by streams on a `LastingFile`.

    Streams that something else has replaced, such as a test, stay as they are.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or _file_of(stream) is not None:
            continue
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.flush()
        file = LastingFile(stream.fileno())
        new = io.TextIOWrapper(
            file if stream.write_through else io.BufferedWriter(file),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def output_error() -> OSError | None:
    """Flush standard output; return the error by which a part of it is missing, or None."""
    file = _file_of(sys.stdout)
    if file is None:
        return None
    sys.stdout.flush()
    return file.error


def _file_of(stream: Any) -> LastingFile | None:
    """Return the file below a stream of `make_lasting`; None for other streams."""
    buffer = getattr(stream, "buffer", None)
    file = getattr(buffer, "raw", buffer)
    return file if isinstance(file, LastingFile) else None
