"""Output files: tables as CSV, Markdown and LaTeX, figures as PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import pandas as pd
from matplotlib.backends.backend_pdf import FigureCanvasPdf, PdfPages
from matplotlib.figure import Figure
from tabulate import tabulate

from analysis.records.problems import Problem
from tdmpc2.common.system.atomic_files import write_atomic


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file atomically."""
    text = table.to_csv(index=False, float_format="%.7g")
    write_atomic(path, partial(_save_text, text))


def write_texts(stem: Path, table: pd.DataFrame) -> list[Path]:
    """Write a table of text as Markdown and LaTeX (booktabs).

    Returns:
        The paths of the files, none if the table is empty.
    """
    if table.empty:
        return []
    written = []
    for suffix, form in ((".md", "github"), (".tex", "latex_booktabs")):
        text = tabulate(
            table.astype(str).to_numpy().tolist(), list(table.columns), form, disable_numparse=True
        )
        path = stem.with_name(stem.name + suffix)
        write_atomic(path, partial(_save_text, f"{text}\n"))
        written.append(path)
    return written


def write_figure(stem: Path, pages: Sequence[Figure]) -> Iterator[Path]:
    """Write the pages as one PDF and one PNG each, atomically.

    Args:
        stem: path without suffix; several PNG files get `-1`, `-2`, … appended.
        pages: at least one page.

    Yields:
        The paths of the files.
    """
    for page in pages:
        settle_layout(page)
    pdf = stem.with_name(stem.name + ".pdf")
    write_atomic(pdf, partial(_save_pdf, pages))
    yield pdf
    for number, page in enumerate(pages, start=1):
        name = stem.name + (f"-{number}" if len(pages) > 1 else "") + ".png"
        write_atomic(stem.with_name(name), partial(page.savefig, format="png"))
        yield stem.with_name(name)


def settle_layout(page: Figure) -> None:
    """Compute the layout of a page once, so that equal pages give equal files.

    The solver of the layout sets positions that differ in the last digits from call to call, which
    moves single pixels; they are rounded.
    """
    FigureCanvasPdf(page)  # sizes of texts are those of the PDF, which are not whole pixels
    page.draw_without_rendering()
    page.set_layout_engine("none")
    for ax in page.axes:
        left, bottom, width, height = ax.get_position(original=True).bounds
        ax.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def problem_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """Return the problems as a table, one per row."""
    rows = [(problem.severity, problem.where, problem.line, problem.what) for problem in problems]
    table = pd.DataFrame(rows, columns=["severity", "where", "line", "what"])
    return table.astype({"line": "Int64"})


def _save_text(text: str, file: IO[bytes]) -> None:
    """Write text to a binary file."""
    file.write(text.encode())


def _save_pdf(pages: Sequence[Figure], file: IO[bytes]) -> None:
    """Write pages as one PDF, without a date so that equal records give equal files."""
    with PdfPages(file, metadata={"CreationDate": None}) as pdf:
        for page in pages:
            pdf.savefig(page)
