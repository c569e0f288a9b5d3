"""Draw figures of the catalog in parallel, and write them with their tables and the audit."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analysis.figures.figure_specs import Catalog, FigureSpec
from analysis.figures.output import problem_table, write_figure, write_table, write_texts
from analysis.figures.page import paper_style
from analysis.figures.registry import PLOTS, select
from analysis.figures.styles import Drawing
from analysis.records.evaluations import NUM_UPDATES
from analysis.records.load import Records
from analysis.records.problems import Problem
from analysis.records.progress import doing
from analysis.stats.audit import audit_all, sensitivity, summary
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from tdmpc2.common.system.atomic_files import cannot_write
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class Share:
    """Inputs that all figures share.

    Attributes:
        records: the records from all sources.
        rule: treatment of missing and repeated evaluations.
        catalog: figures, styles and bootstrap settings.
        out_dir: output folder.
        inputs: `embeddings`, `frames` and `layout` of `styles.Shown`.
        tables_only: whether to write only the tables, which takes less time.
    """

    records: Records
    rule: Rule
    catalog: Catalog
    out_dir: Path
    inputs: Mapping[str, Any]
    tables_only: bool = False


UNDRAWN = "figures"
"""Origin of the problems that name figures without anything to show."""
Drawn = tuple[list[Path], tuple[Problem, ...]]
"""Files written, and the problems found."""


def draw_figures(names: Sequence[str], share: Share, jobs: int) -> list[Problem]:
    """Draw and write figures and the audit of the records, and print the paths of the files.

    Args:
        names: names of figures in the catalog.
        share: inputs of the figures.
        jobs: number of figures drawn in parallel.

    Returns:
        The problems of the records and of the figures.

    Raises:
        UserError: If a file cannot be written.
    """
    problems, out_dir = list(share.records.problems), share.out_dir
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        specs = [share.catalog.figures[name] for name in names]
        with tqdm(total=len(specs), desc="figures", leave=False, disable=None) as bar:
            for paths, new_problems in _each(specs, share, jobs):
                for path in paths:
                    bar.write(str(path))
                problems += new_problems
                bar.update()
        with doing("auditing the records"):
            findings = _write_audit(share)
        for name in ("audit", "sensitivity"):
            print(out_dir / f"{name}.csv")
        for line in summary(findings):
            print(f"audit: {line}", file=sys.stderr)
        problems = _without_repeats(problems, specs)
        write_table(out_dir / "problems.csv", problem_table(problems))
    except OSError as error:
        raise UserError(cannot_write("the figures", error)) from error
    return problems


def _each(specs: Sequence[FigureSpec], share: Share, jobs: int) -> Iterator[Drawn]:
    """Draw the figures in parallel, and yield the result of each in the given order."""
    if min(jobs, len(specs)) <= 1:
        yield from (_draw(spec, share) for spec in specs)
        return
    # Spawn instead of fork, because the statistics use threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(specs)), context) as pool:
        yield from pool.map(partial(_draw, share=share), specs)


def _draw(spec: FigureSpec, share: Share) -> Drawn:
    """Draw one figure and write its files."""
    out_dir = share.out_dir
    shown = select(spec, share.records, share.rule, share.catalog, **share.inputs)
    with paper_style():
        drawing = PLOTS[spec.plot](shown)
        if not drawing.pages:
            errors = [p for p in drawing.problems if p.severity == "error"]
            own = spec.only_ours and bool(drawing.problems)
            return [], (*errors, _undrawable(spec, drawing) if own else _undrawn([spec]))
        pages = () if share.tables_only else drawing.pages
        paths = list(write_figure(out_dir / spec.name, pages)) if pages else []
    paths.append(out_dir / f"{spec.name}.csv")
    write_table(paths[-1], drawing.numbers)
    paths += write_texts(out_dir / spec.name, drawing.table)
    return paths, drawing.problems


def _write_audit(share: Share) -> pd.DataFrame:
    """Write `audit.csv` and `sensitivity.csv`, and return the audit."""
    records, out_dir = share.records, share.out_dir
    curves = ScoreCurves(records)
    findings = audit_all([curves, ScoreCurves(records, NUM_UPDATES)], share.rule)
    write_table(out_dir / "audit.csv", findings)
    write_table(
        out_dir / "sensitivity.csv", sensitivity(curves, list(share.catalog.groups.values()))
    )
    return findings


def _undrawable(spec: FigureSpec, drawing: Drawing) -> Problem:
    """Return the line on a figure of the tasks run here that no series can be drawn in."""
    first, number = drawing.problems[0], len(drawing.problems)
    rest = f", and {number - 1} more such series" if number > 1 else ""
    what = f"not drawn: {first.where}: {first.what}{rest}; tasks= chooses tasks in common"
    return Problem(f"figure {spec.name}", None, what, "warning")


def _undrawn(specs: Sequence[FigureSpec]) -> Problem:
    """Return the line that names figures without anything to show, and what to run for them."""
    names = ", ".join(spec.name for spec in specs)
    hint = f"; run `{specs[0].command}`" if specs[0].command else ""
    return Problem(UNDRAWN, None, f"not drawn, nothing to show: {names}{hint}", "warning")


def _without_repeats(problems: Sequence[Problem], specs: Sequence[FigureSpec]) -> list[Problem]:
    """Return each problem once, with one line for all undrawn figures of the same command."""
    undrawn = {problem for problem in problems if problem.where == UNDRAWN}
    by_command: dict[str, list[FigureSpec]] = {}
    for spec in specs:
        if _undrawn([spec]) in undrawn:
            by_command.setdefault(spec.command, []).append(spec)
    rest = list(dict.fromkeys(problem for problem in problems if problem not in undrawn))
    return [*rest, *map(_undrawn, by_command.values())]
