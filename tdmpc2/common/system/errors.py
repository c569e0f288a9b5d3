"""Errors that commands turn into a message or a run state, and hints for misspelled names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator

# Unicode categories of control characters, line separators and bytes that are not UTF-8.
CONTROL = ("Cc", "Zl", "Zp", "Cs")


def one_line(text: object) -> str:
    """Return a text without line breaks and other control characters, which are escaped."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in CONTROL else char
        for char in str(text)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what caused it, and so on.

    The chain may be a circle, where it ends: a cause that is raised again has the error that it
    caused as context.
    """
    passed: set[int] = set()
    while error is not None and id(error) not in passed:
        passed.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class UserError(Exception):
    """Invalid input from the user.

    The message is one line that also states what to do. Commands print it and exit with code 2.

    Args:
        message: the message; control characters in it, e.g. from a damaged file, are escaped.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class DivergedError(RuntimeError):
    """Training produced NaN or Inf.

    This is a result of the experiment and not a failure: the run ends in the state DIVERGED, its
    data is kept, and it is not retried.
    """


class StoppedError(RuntimeError):
    """The run stopped on request, e.g. after SIGTERM; it resumes from its last checkpoint.

    Attributes:
        signal: number of the signal that requested the stop; None for other reasons.
    """

    signal: int | None = None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return a hint for a misspelled name, to be appended to an error message.

    Args:
        name: the name that was given.
        choices: the valid names.

    Returns:
        `" (did you mean 'suite'?)"` if a valid name is similar, else a list of the valid names.
    """
    options = sorted({str(choice) for choice in choices})
    close = difflib.get_close_matches(str(name), options, n=1)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(options)})" if options else ""
