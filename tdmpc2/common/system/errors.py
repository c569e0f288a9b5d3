"""Errors that a command answers with a message or a state, and hints for misspelled words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that says what to do; commands print it and exit with code 2."""


class DivergedError(RuntimeError):
    """Training produced NaN or Inf: a result, not a fault; the data is kept."""


class StoppedError(RuntimeError):
    """The run was asked to stop; it resumes from its last checkpoint.

    Attributes:
        signal: that asked; None if it was something else.
    """

    signal: int | None = None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Hint for a misspelled word, to be appended to an error message.

    Args:
        name: what was typed.
        choices: the valid ones.

    Returns:
        `" (did you mean 'suite'?)"` when something is close, else a list of the
        valid names.
    """
    options = sorted({str(choice) for choice in choices})
    close = difflib.get_close_matches(str(name), options, n=1)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(options)})" if options else ""
