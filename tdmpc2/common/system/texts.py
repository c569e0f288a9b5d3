"""Pieces of the sentences that commands print."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, name: str) -> str:
    """Return a number with the singular or plural of a noun: `1 seed`, `3 seeds`."""
    return f"{number:,} {name}{'s' * (number != 1)}"


def span_text(few: float, many: float) -> str:
    """Return the smallest and the largest of some whole numbers: `3`, `1 to 3`."""
    return f"{few:,.0f}" if few == many else f"{few:,.0f} to {many:,.0f}"


def table_span(numbers: Sequence[int]) -> str:
    """Return the smallest and the largest of some numbers for a table: `3`, `2-3`."""
    return "-".join(map(str, sorted({min(numbers), max(numbers)})))


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds with their noun: `seed 1`, `seeds 1, 2`."""
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def size_text(size: object) -> str:
    """Return a model size in millions of parameters, `5M`, or its name, `smoke`."""
    return f"{size}{'M' * str(size).isdigit()}"
