"""Command: compare our runs with the published curves, per task and per domain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.source_options import (
    load_sources,
    report,
)
from analysis.stats.margins import DOMAIN_MARGINS, OPEN, OTHER_MARGIN, TASK_MARGIN
from analysis.stats.rules import ScoreOptions, get_rule
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import POINTS, setting
from tdmpc2.common.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReproduceOptions(ScoreOptions):
    """Options of the command."""

    methods: str | None = setting(None, "compare only these methods, NAME,NAME; default: all")
    variant: str = setting("default", "variant of our runs to compare")
    margin: float = setting(TASK_MARGIN, "equivalence margin for a task, in points", POINTS)
    domain_margin: float | None = setting(
        None,
        "equivalence margin for the mean over a domain, in points; default: "
        f"{DOMAIN_MARGINS['tdmpc2']:g} for tdmpc2, {OTHER_MARGIN:g} for other methods",
        POINTS,
    )
    out: Path | None = setting(
        None,
        "write reproduction_tasks and reproduction_domains (.csv, .md, .tex) to this folder; "
        "default: print the tables only",
    )


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/reproduce.py published=DIR [key=value ...]

Compares our runs with the published curves of the same method and task, at the last env step that
all our seeds reached and the published curves cover. The tables list the difference of the means
in points (return / 10, or success in percent) with its 95 % confidence interval (Welch), and a
verdict:

  reproduced       the difference lies within the margin (equivalence test: two one-sided tests
                   at 5 %)
  worse, better    not equivalent, and the 95 % interval excludes zero
  {OPEN}  neither; the table estimates how many seeds would decide it

{describe_fields(ReproduceOptions)}

exit code, from the means over domains: 0 all are reproduced or better; 1 at least one is worse;
2 bad input; 3 none is worse, but at least one has not enough data."""


def main(arguments: Sequence[str]) -> int:
    """Compare the runs, print the tables, and write them to `out` if it is given.

    Args:
        arguments: `key=value` options; see `usage`.

    Returns:
        The exit code described in `usage`.

    Raises:
        UserError: If an argument is unknown, a folder is missing, or there is nothing to compare.
    """
    options = parse_options(arguments, ReproduceOptions)
    if options.published is None:
        raise UserError(
            "published= is missing: name the folder of the published curves, published=DIR "
            "(`python analysis/fetch_published.py` downloads them)"
        )
    rule = get_rule(options.rule)
    from analysis.stats.against_published import compare_domains, compare_tasks
    from analysis.stats.equivalence_tables import shown
    from analysis.stats.ragged_curves import ScoreCurves

    records = load_sources(options)
    report(records.problems)
    methods = options.methods.split(",") if options.methods is not None else ()
    curves = ScoreCurves(records.select(methods=methods))
    tasks = compare_tasks(curves, rule, options.variant, options.margin)
    if tasks.empty:
        raise UserError(
            f"no run of variant '{options.variant}' has published curves of its method and task; "
            "check variant=, methods= and tasks="
        )
    domains = compare_domains(tasks, options.domain_margin)
    print(shown(tasks, domains))
    if options.out is not None:
        _write(options.out, tasks, domains)
    verdicts = set(domains["verdict"])
    return 1 if "worse" in verdicts else 3 if OPEN in verdicts else 0


def _write(out: Path, tasks: pd.DataFrame, domains: pd.DataFrame) -> None:
    """Write both tables as numbers and as text."""
    from analysis.figures.output import write_table, write_texts
    from analysis.stats.equivalence_tables import domain_texts, task_texts

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, numbers, texts in (
            ("tasks", tasks, task_texts(tasks)),
            ("domains", domains, domain_texts(domains)),
        ):
            write_table(out / f"reproduction_{name}.csv", numbers)
            print(out / f"reproduction_{name}.csv", file=sys.stderr)
            for path in write_texts(out / f"reproduction_{name}", texts):
                print(path, file=sys.stderr)
    except OSError as error:
        raise UserError(f"cannot write to out={out}: {error}") from error


if __name__ == "__main__":
    sys.exit(command(main, usage))
