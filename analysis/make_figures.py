"""Command: draw the figures of `paper_figures/figures.toml` from recorded runs."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analysis.figures.figure_specs import REPS, Catalog, FigureSpec, with_reps
from analysis.figures.output import problem_table, write_figure, write_table, write_texts
from analysis.figures.page import command_card, paper_style
from analysis.figures.registry import PLOTS, select, shipped_catalog
from analysis.records.evaluations import NUM_UPDATES
from analysis.records.load import Records
from analysis.records.problems import Problem
from analysis.records.source_options import (
    SHOWN_PROBLEMS,
    load_sources,
    report,
)
from analysis.stats.audit import audit_all, sensitivity, summary
from analysis.stats.ragged_curves import Rule, ScoreCurves, ScoreOptions, get_rule
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import project_root


@dataclass(frozen=True)
class FigureOptions(ScoreOptions):
    """Options of the command."""

    embeddings: str = setting(
        "",
        "run directories or checkpoints of multi-task agents for the figure `embeddings`, "
        "PATH,PATH; default: none; of a run, the newest checkpoint is used",
    )
    out: Path | None = setting(None, "output folder; default: paper_figures/")
    only: str = setting("", "draw only these figures, only=NAME,NAME; default: all")
    reps: int | None = setting(
        None, "number of bootstrap resamples; default: the value in figures.toml", REPS
    )
    jobs: int = setting(
        usable_cores,
        "number of figures drawn in parallel; default: the CPU cores",
        low=1,
        high=1024,
    )


def usage() -> str:
    """Return the text of `--help`."""
    figures = shipped_catalog().figures.values()
    listed = "\n".join(f"  {spec.name:<22} {spec.title}" for spec in figures)
    return f"""\
usage: python analysis/make_figures.py [key=value ...]

Draws the figures of paper_figures/figures.toml from recorded runs.

{describe_fields(FigureOptions)}

figures:
{listed}

Every figure is written as NAME.pdf, NAME.png (NAME-1.png, … if it has several pages), NAME.csv
(the plotted numbers) and, if it has a summary table, NAME.md and NAME.tex. audit.csv lists every
missing, repeated or truncated evaluation and how it was treated; sensitivity.csv lists the scores
under every rule. Records that could not be used are listed in problems.csv and, up to
{SHOWN_PROBLEMS} entries, on stderr.

exit code: 0 success, possibly with warnings; 1 figures were drawn, but records that should
have been usable were excluded; 2 bad input or nothing to draw, and nothing was written."""


def main(arguments: Sequence[str]) -> int:
    """Draw and write the figures, and print the paths of the files.

    Args:
        arguments: `key=value` options, each optional; see `usage`.

    Returns:
        1 if records that should have been usable were excluded, else 0.

    Raises:
        UserError: If an argument or figure is unknown, the catalog or a folder is unusable, or
            there is nothing to draw.
    """
    options = parse_options(arguments, FigureOptions)
    out_dir = options.out or _figures_dir()
    catalog = shipped_catalog()
    if options.reps is not None:
        catalog = with_reps(catalog, options.reps)
    specs = _chosen(catalog, options.only)
    rule = get_rule(options.rule)
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"out={out_dir} is a file, not a folder")
    embeddings = _paths(options.embeddings)
    records = load_sources(options, multitask=True, released=True)
    problems = list(records.problems)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        share = Share(records, rule, catalog, out_dir, embeddings)
        for paths, new_problems in _each(specs, share, options.jobs):
            for path in paths:
                print(path, flush=True)
            problems += new_problems
        _write_audit(records, rule, catalog, out_dir)
        problems = _without_repeats(problems)
        write_table(out_dir / "problems.csv", problem_table(problems))
    except OSError as error:
        raise UserError(f"cannot write the figures: {error}") from error
    report(problems)
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def _paths(arguments: str) -> tuple[Path, ...]:
    """Return the paths of `embeddings=`; raise UserError if one does not exist."""
    paths = tuple(Path(argument).expanduser() for argument in arguments.split(",") if argument)
    for path in paths:
        if not path.exists():
            raise UserError(f"embeddings={path} does not exist")
    return paths


def _figures_dir() -> Path:
    """Return the folder of the catalog and the style, which is also the default output folder."""
    return project_root() / "paper_figures"


def _chosen(catalog: Catalog, only: str) -> list[FigureSpec]:
    """Return the figures to draw."""
    names = only.split(",") if only else list(catalog.figures)
    for name in names:
        if name not in catalog.figures:
            hint = did_you_mean(name, catalog.figures)
            raise UserError(f"unknown figure '{name}'{hint}")
    return [catalog.figures[name] for name in names]


@dataclass(frozen=True)
class Share:
    """Inputs that all figures share.

    Attributes:
        records: the records from all sources.
        rule: treatment of missing and repeated evaluations.
        catalog: figures, styles and bootstrap settings.
        out_dir: output folder.
        embeddings: run directories or checkpoints of multi-task agents.
    """

    records: Records
    rule: Rule
    catalog: Catalog
    out_dir: Path
    embeddings: tuple[Path, ...]


Drawn = tuple[list[Path], tuple[Problem, ...]]
"""Files written, and the problems found."""


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
    shown = select(spec, share.records, share.rule, share.catalog, share.embeddings)
    paths: list[Path] = []
    with paper_style():
        drawing = PLOTS[spec.plot](shown)
        if drawing.pages:
            paths = list(write_figure(out_dir / spec.name, drawing.pages))
        elif spec.command:
            card = command_card(spec.title, spec.command)
            return list(write_figure(out_dir / spec.name, [card])), ()
    if not drawing.pages:
        undrawn = Problem("figures", None, f"not drawn, no matching runs: {spec.name}", "warning")
        return [], (undrawn,)
    paths.append(out_dir / f"{spec.name}.csv")
    write_table(paths[-1], drawing.numbers)
    paths += write_texts(out_dir / spec.name, drawing.table)
    return paths, drawing.problems


def _write_audit(records: Records, rule: Rule, catalog: Catalog, out_dir: Path) -> None:
    """Write `audit.csv` and `sensitivity.csv`, and print a summary on stderr."""
    curves = ScoreCurves(records)
    findings = audit_all([curves, ScoreCurves(records, NUM_UPDATES)], rule)
    write_table(out_dir / "audit.csv", findings)
    write_table(out_dir / "sensitivity.csv", sensitivity(curves, list(catalog.groups.values())))
    for name in ("audit", "sensitivity"):
        print(out_dir / f"{name}.csv")
    for line in summary(findings):
        print(f"audit: {line}", file=sys.stderr)


def _without_repeats(problems: Sequence[Problem]) -> list[Problem]:
    """Return each problem once, with all figures that were not drawn in a single warning."""
    undrawn = [p.what.rpartition(" ")[2] for p in problems if p.where == "figures"]
    rest = list(dict.fromkeys(problem for problem in problems if problem.where != "figures"))
    if undrawn:
        what = f"not drawn, no matching runs: {', '.join(undrawn)}"
        rest.append(Problem("figures", None, what, "warning"))
    return rest


if __name__ == "__main__":
    sys.exit(command(main, usage))
