"""`Problem`: an entry of the list of records that could not be used as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNREADABLE = "cannot be read"
"""What is wrong with a file whose content is unknown, e.g. for lack of permission."""
Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Problem:
    """A record that could not be used as it is.

    Attributes:
        where: the file or the runs concerned.
        line: 1-based line number in the file, None if no line applies.
        what: what is wrong, and how it was handled.
        severity: "warning" for what is normal while runs are in progress or after a crash;
            "error" if records that should have been usable are excluded.
        unknown_task: the task, if it is not in the table of tasks; else empty.
    """

    where: str
    line: int | None
    what: str
    severity: Severity = "error"
    unknown_task: str = ""

    def __str__(self) -> str:
        """Return `severity: file:line: what`, the format of compiler messages."""
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        return f"{self.severity}: {place}: {self.what}"
