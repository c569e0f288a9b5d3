"""Room of the problem list: what the records hold that cannot be used as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Problem:
    """Something in the records that could not be used as it stands.

    Attributes:
        where: the file, or the runs, it concerns.
        line: 1-based line number in that file, None where a line makes no sense.
        what: what is wrong and what was done about it.
        severity: "warning" for what is normal while runs go on or after a crash;
            "error" where records that should have been usable are left out.
    """

    where: str
    line: int | None
    what: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """`severity: file:line: what`, as compilers print it."""
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        return f"{self.severity}: {place}: {self.what}"
