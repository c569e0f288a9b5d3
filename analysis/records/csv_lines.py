"""Room of the lines of a record: what a CSV file holds, one line at a time."""

from __future__ import annotations

import math
from pathlib import Path

from analysis.records.problems import Problem


def whole_lines(
    path: Path, problems: list[Problem], nothing: str = "no evaluation yet"
) -> list[str]:
    """Header and lines of a record, without a last one that was cut off while being written.

    Args:
        path: the file.
        problems: grows where there is no line under the header; nothing is returned then.
        nothing: what that is called.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        lines = [""]
    except OSError as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return []
    if lines.pop():
        what = "half-written last line, skipped"
        problems.append(Problem(str(path), len(lines) + 1, what, "warning"))
    if len(lines) < 2:
        problems.append(Problem(str(path), None, nothing, "warning"))
        return []
    return lines


def fields_of(header: list[str], line: str) -> dict[str, str]:
    """The fields of a line by column; ValueError where their number differs."""
    fields = line.strip().split(",")
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} fields under {len(header)} columns")
    return dict(zip(header, fields, strict=True))


def number_in(row: dict[str, str], name: str) -> float:
    """A finite number; ValueError says what stands there instead."""
    try:
        value = float(row[name])
    except ValueError:
        raise ValueError(f"{name} is no number: {row[name]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {row[name]}")
    return value


def count_in(row: dict[str, str], name: str) -> int:
    """A whole number from 0; ValueError says what stands there instead."""
    value = number_in(row, name)
    if value < 0 or not value.is_integer():
        raise ValueError(f"{name} {row[name]} is no count of steps")
    return int(value)
