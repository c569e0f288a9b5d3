"""Parsing of the lines of the CSV files in a run directory."""

from __future__ import annotations

from pathlib import Path

from analysis.records import curve_checks
from analysis.records.problems import UNREADABLE, Problem
from tdmpc2.common.system.regular_files import regular


def whole_lines(
    path: Path, problems: list[Problem], nothing: str = "no evaluation yet"
) -> list[str]:
    """Return the header and the complete lines of a file.

    A last line that was cut off while being written is skipped.

    Args:
        path: the file.
        problems: list to which a problem is appended; if there is no line below the header, the
            result is empty.
        nothing: text of that problem.
    """
    try:
        lines = regular(path).read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except FileNotFoundError:
        lines = [""]
    except OSError as error:
        problems.append(Problem(str(path), None, f"{UNREADABLE}: {error}"))
        return []
    if lines.pop():
        what = "incomplete last line, skipped"
        problems.append(Problem(str(path), len(lines) + 1, what, "warning"))
    if len(lines) < 2:
        problems.append(Problem(str(path), None, nothing, "warning"))
        return []
    return lines


def fields_of(header: list[str], line: str) -> dict[str, str]:
    """Return the fields of a line by column.

    Raises:
        ValueError: If the number of fields differs from the header.
    """
    fields = line.strip().split(",")
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} fields for {len(header)} columns")
    return dict(zip(header, fields, strict=True))


def count_in(row: dict[str, str], name: str) -> int:
    """Return the non-negative integer in a column.

    Raises:
        ValueError: If the field is not a credible number of steps.
    """
    return curve_checks.step(row[name], name)
