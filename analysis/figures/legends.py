"""Legends: their size, and the line breaks of long labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from math import ceil

from matplotlib.artist import Artist

LEGEND_SIZE = 7.5
"""Font size in points."""
CHAR = 0.53
"""Mean width of a character of the sans-serif font in texts, in font sizes."""
_HANDLE = 40
"""Width of a legend's line, and of the space around it, in points."""
_LENGTHS = (60, 40)
"""Most characters of a line, and of the lines of longer labels if that saves height."""


def broken(label: str, length: int = _LENGTHS[0]) -> str:
    """Return a label in lines, broken after spaces and after the plus signs between settings.

    Args:
        label: label in one line.
        length: most characters of a line.
    """
    whole = re.split(r"(?<=[+ ])", label)
    pieces = [piece[at : at + length] for piece in whole for at in range(0, len(piece), length)]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(f"{lines[-1]}{piece}".rstrip()) > length:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def fit_legend(handles: Sequence[Artist], width: float) -> tuple[float, int]:
    """Break the labels of a legend so that it takes little height; return height and columns.

    Args:
        handles: labeled artists, whose labels are changed.
        width: width of the legend, in inches.

    Returns:
        The height in inches, and the number of columns, which matplotlib fills one after the other.
    """
    if not handles:
        return 0.0, 1
    labels = [str(handle.get_label()) for handle in handles]
    most, short = _LENGTHS
    choices = [
        [broken(label, length) if len(label) > most else label for label in labels]
        for length in (most, short)
    ]
    sizes = [_size(choice, width) for choice in choices]
    best = min(range(len(choices)), key=lambda index: sizes[index][0])
    for handle, label in zip(handles, choices[best], strict=True):
        handle.set_label(label)
    return sizes[best]


def _size(labels: Sequence[str], width: float) -> tuple[float, int]:
    """Return the height in inches and the number of columns of a legend with these labels."""
    for columns in range(len(labels), 0, -1):
        rows = ceil(len(labels) / columns)
        if columns > 1 and columns != ceil(len(labels) / rows):
            continue  # fewer columns have as many rows
        parts = _columns([label.split("\n") for label in labels], columns)
        longest = (max(len(line) for lines in part for line in lines) for part in parts)
        if sum(one * CHAR * LEGEND_SIZE + _HANDLE for one in longest) <= 72 * width:
            break
    lines = max(sum(len(lines) for lines in part) for part in parts)
    return lines * 1.6 * LEGEND_SIZE / 72, columns


def _columns(entries: Sequence[list[str]], columns: int) -> list[list[list[str]]]:
    """Return the entries of each column; the first ones have one more if they are not equal."""
    size, longer = divmod(len(entries), columns)
    ends = [index * size + min(index, longer) for index in range(columns + 1)]
    return [list(entries[start:end]) for start, end in pairwise(ends) if start < end]
