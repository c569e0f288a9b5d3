"""Command: draws the figures of `paper_figures/figures.toml` from the recorded runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from analysis.catalogue import Catalogue, FigureSpec, read_catalogue
from analysis.plots import PLOTS
from analysis.problems import Problem
from analysis.records import Records, load
from tdmpc2.common.cli import command, parse_words
from tdmpc2.common.errors import UserError, did_you_mean
from tdmpc2.common.files import write_atomic
from tdmpc2.common.paths import default_runs_dir, project_root

SHOWN_PROBLEMS = 20


def usage() -> str:
    """What `--help` prints."""
    return f"""\
Draws the figures of paper_figures/figures.toml from the recorded runs.

usage: python analysis/make_figures.py [key=value ...]

  runs=DIR    folder of the runs (default: {default_runs_dir()})
  out=DIR     where the figures go (default: {_figures_dir()})
  only=NAME   only this figure, or several: only=NAME,NAME
  --help      this text

Every figure is written as NAME.pdf, NAME.png and NAME.csv (its numbers). Whatever could not
be used of the records is listed in problems.csv and, up to {SHOWN_PROBLEMS} entries, on stderr.

exit code: 0 all well (warnings are possible); 1 figures were drawn, but records that should
have been usable were left out; 2 bad input or nothing to draw, and nothing was written."""


def main(words: Sequence[str]) -> int:
    """Draws and writes the figures, and prints the paths of the files.

    Args:
        words: `runs=DIR`, `out=DIR`, `only=NAME,NAME`, each optional.

    Returns:
        1 where records that should have been usable were left out, else 0.

    Raises:
        UserError: unknown word or figure, unusable catalogue or folder, nothing to draw.
    """
    values = parse_words(words, {"runs": Path, "out": Path, "only": str})
    out_dir = values.get("out", _figures_dir())
    catalogue = read_catalogue(_figures_dir() / "figures.toml", PLOTS)
    specs = _chosen(catalogue, values.get("only", ""))
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"out={out_dir} is a file, not a folder")
    records = _load(values.get("runs", default_runs_dir()))
    problems = list(records.problems)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            problems += _draw(records, spec, catalogue, out_dir)
        problems = list(dict.fromkeys(problems))
        _write_table(out_dir / "problems.csv", _as_table(problems))
    except OSError as error:
        raise UserError(f"cannot write the figures: {error}") from error
    _report(problems)
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def _figures_dir() -> Path:
    """Home of the catalogue and the style, and of the figures unless told otherwise."""
    return project_root() / "paper_figures"


def _load(runs_dir: Path) -> Records:
    """The records, or UserError when they hold no evaluation at all."""
    records = load(runs_dir)
    if records.table.empty:
        _report(records.problems)
        count = len(records.runs)
        found = f"{count} run{'s' * (count > 1)} without evaluation" if count else "no run"
        raise UserError(
            f"{found} in {runs_dir}; run `python sweeps/launch.py suite=smoke seeds=2` first, "
            "or name the folder of your runs with runs=DIR"
        )
    return records


def _chosen(catalogue: Catalogue, only: str) -> list[FigureSpec]:
    """The figures to draw."""
    names = only.split(",") if only else list(catalogue.figures)
    for name in names:
        if name not in catalogue.figures:
            hint = did_you_mean(name, catalogue.figures)
            raise UserError(f"unknown figure '{name}'{hint}")
    return [catalogue.figures[name] for name in names]


def _draw(
    records: Records, spec: FigureSpec, catalogue: Catalogue, out_dir: Path
) -> tuple[Problem, ...]:
    """Draws one figure, writes its three files and prints their paths."""
    selected = records.select(methods=spec.methods, variants=spec.variants, tasks=spec.tasks)
    with matplotlib.style.context(_figures_dir() / "paper.mplstyle"):
        drawing = PLOTS[spec.plot](selected, spec, catalogue)
        figure = drawing.figure
        if figure is None:
            what = "not drawn, the runs it shows have nothing to draw yet"
            return (*drawing.problems, Problem(f"figure {spec.name}", None, what, "warning"))
        _write_figure(out_dir / f"{spec.name}.pdf", figure)
        _write_figure(out_dir / f"{spec.name}.png", figure)
    _write_table(out_dir / f"{spec.name}.csv", drawing.numbers)
    for suffix in ("pdf", "png", "csv"):
        print(out_dir / f"{spec.name}.{suffix}")
    return drawing.problems


def _write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure whole or not at all, in the format its name says."""
    kind = path.suffix.removeprefix(".")
    # Without a date in it, the same records give the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    write_atomic(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))


def _write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a CSV file whole or not at all."""
    text = table.to_csv(index=False, float_format="%.10g")
    write_atomic(path, lambda file: file.write(text.encode()))


def _as_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """Problems, one a row."""
    rows = [(problem.severity, problem.where, problem.line, problem.what) for problem in problems]
    table = pd.DataFrame(rows, columns=["severity", "where", "line", "what"])
    return table.astype({"line": "Int64"})


def _report(problems: Sequence[Problem]) -> None:
    """Prints the first problems, errors before warnings."""
    ordered = sorted(problems, key=lambda problem: problem.severity)
    for problem in ordered[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(ordered) > SHOWN_PROBLEMS:
        rest = len(ordered) - SHOWN_PROBLEMS
        print(f"... and {rest} more, see problems.csv", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(command(main, usage))
