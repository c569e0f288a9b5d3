"""Command: draw the figures of `paper_figures/figures.toml` from recorded runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.figures.catalog_file import figure_titles, figures_dir
from analysis.records.source_options import (
    SHOWN_PROBLEMS,
    load_sources,
    report,
)
from analysis.stats.rules import ScoreOptions, get_rule
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import REPS, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import listed_paths


@dataclass(frozen=True)
class FigureOptions(ScoreOptions):
    """Options of the command."""

    embeddings: str = setting(
        "",
        "run directories or checkpoints of multi-task agents for the figure `embeddings`, "
        "PATH,PATH; default: none; of a run, the newest checkpoint is used",
    )
    frames: Path | None = setting(
        None,
        "folder of task frames for the figure `appendix_gallery`, which "
        "`python tdmpc2/frames.py out=DIR` renders; default: none",
    )
    out: Path | None = setting(None, "output folder; default: paper_figures/")
    width: float = setting(5.5, "width of the figures, in inches", low=3, high=20)
    captions: bool = setting(
        True, "show below each figure its runs, commits, aggregation and their limits"
    )
    tables: bool = setting(False, "write only the tables (CSV, Markdown, LaTeX), no figures")
    only: str = setting("", "draw only these figures, only=NAME,NAME; default: all")
    reps: int | None = setting(
        None, "simulated studies that measure coverages, at most 1,000; default: that many", REPS
    )
    jobs: int = setting(
        usable_cores,
        "number of figures drawn in parallel; default: the CPU cores",
        low=1,
        high=1024,
    )


def usage() -> str:
    """Return the text of `--help`."""
    listed = "\n".join(f"  {name:<22} {title}" for name, title in figure_titles().items())
    return f"""\
usage: python analysis/make_figures.py [key=value …]

Draws the figures of paper_figures/figures.toml from recorded runs.

{describe_fields(FigureOptions)}

figures:
{listed}

Every figure is written as NAME.pdf, NAME.png (NAME-1.png, … if it has several pages), NAME.csv
(the plotted numbers) and, if it has a summary table, NAME.md and NAME.tex. audit.csv lists every
missing, repeated or truncated evaluation and how it was treated; sensitivity.csv lists the scores
under every rule. Records that could not be used are listed in problems.csv and, up to
{SHOWN_PROBLEMS} entries, on stderr.

Exit code: 0 success, possibly with warnings; 1 figures were drawn, but records that should
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
    out_dir = options.out or figures_dir()
    names = _chosen(options.only)
    rule = get_rule(options.rule)
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"out={out_dir} is a file, not a folder")
    embeddings = _paths(options.embeddings)
    if options.frames is not None and not options.frames.is_dir():
        raise UserError(f"frames={options.frames} is not a folder")
    from analysis.figures.drawing import Share, draw_figures
    from analysis.figures.figure_specs import with_reps
    from analysis.figures.registry import shipped_catalog
    from analysis.figures.styles import Layout

    catalog = shipped_catalog()
    if options.reps is not None:
        catalog = with_reps(catalog, options.reps)
    records = load_sources(options, multitask=True, released="always")
    layout = Layout(options.width, options.captions)
    inputs = {"embeddings": embeddings, "frames": options.frames, "layout": layout}
    share = Share(records, rule, catalog, out_dir, inputs, options.tables)
    problems = draw_figures(names, share, options.jobs)
    report(problems, "see problems.csv")
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def _paths(arguments: str) -> tuple[Path, ...]:
    """Return the paths of `embeddings=`; raise UserError if one does not exist."""
    paths = tuple(listed_paths(arguments, "embeddings"))
    for path in paths:
        if not path.exists():
            raise UserError(f"embeddings={path} does not exist")
    return paths


def _chosen(only: str) -> list[str]:
    """Return the names of the figures to draw."""
    known = figure_titles()
    names = only.split(",") if only else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown figure '{name}'{did_you_mean(name, known)}")
    return names


if __name__ == "__main__":
    sys.exit(command(main, usage))
