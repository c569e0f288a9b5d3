"""Errors of a process that gets no more memory, or no further process or thread."""

from __future__ import annotations

import errno

from tdmpc2.common.system.errors import chain

_TYPES = ("MemoryError", "OutOfMemoryError")  # the latter is torch's, which is not imported here
# Messages of torch, and of the loader of shared libraries.
_MESSAGES = ("allocate memory", "out of memory", "failed to map segment")
_LENGTH = 200


def out_of_memory(error: BaseException | None) -> str | None:
    """Return what lacks memory if that caused an error, else None; one line, without a full stop.

    Args:
        error: the error; the chain of its causes is searched.
    """
    for one in chain(error):
        text = str(one).partition("\n")[0]
        number = one.errno if isinstance(one, OSError) else None
        known = isinstance(one, RuntimeError | ImportError | OSError)
        told = known and any(message in text.lower() for message in _MESSAGES)
        if told or number == errno.ENOMEM or type(one).__name__ in _TYPES:
            return text.strip()[:_LENGTH].rstrip(". ") or type(one).__name__
    return None


def out_of_processes(error: BaseException | None) -> str | None:
    """Return what cannot be started if a limit of processes and threads caused an error, else None.

    Args:
        error: the error; the chain of its causes is searched.
    """
    for one in chain(error):
        if isinstance(one, RuntimeError) and "can't start new thread" in str(one):
            return "no further thread"
        if isinstance(one, BlockingIOError) and one.errno == errno.EAGAIN:  # of `fork`
            return "no further process"
    return None
