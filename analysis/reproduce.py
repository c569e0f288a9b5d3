"""Command: compare our runs with the published curves, per task and per domain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.source_options import (
    SOURCE_OPTIONS,
    load_sources,
    report,
    usage_of_sources,
)
from analysis.records.sources import PUBLISHED
from analysis.stats.margins import DOMAIN_MARGINS, OPEN, OTHER_MARGIN, TASK_MARGIN
from analysis.stats.rules import DEFAULT_RULE, get_rule, usage_of_rules
from tdmpc2.common.system.cli import command, parse_arguments
from tdmpc2.common.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


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

{usage_of_sources()}
{usage_of_rules()}
  methods=NAMES  compare only these methods, NAME,NAME (default: all)
  variant=NAME   variant of our runs to compare (default: default)
  margin=POINTS  equivalence margin for a task (default: {TASK_MARGIN:g})
  domain_margin=POINTS
                 equivalence margin for the mean over a domain (default: \
{DOMAIN_MARGINS["tdmpc2"]:g} for tdmpc2,
                 {OTHER_MARGIN:g} for other methods)
  out=DIR        write reproduction_tasks and reproduction_domains (.csv, .md, .tex) to this
                 folder (default: print the tables only)
  --help         print this text

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
    own = {"methods": str, "variant": str, "margin": float, "domain_margin": float, "out": Path}
    values = parse_arguments(arguments, {**SOURCE_OPTIONS, **own})
    if PUBLISHED not in values:
        raise UserError(
            "published= is missing: name the folder of the published curves, published=DIR "
            "(`python analysis/fetch_published.py` downloads them)"
        )
    for key in ("margin", "domain_margin"):
        if key in values and not values[key] > 0:
            raise UserError(f"{key}={values[key]:g} must be above 0")
    rule = get_rule(values.get("rule", DEFAULT_RULE))
    # These import pandas.
    from analysis.stats.against_published import compare_domains, compare_tasks
    from analysis.stats.equivalence_tables import shown
    from analysis.stats.ragged_curves import ScoreCurves

    records = load_sources(values)
    report(records.problems)
    methods = values["methods"].split(",") if "methods" in values else ()
    curves = ScoreCurves(records.select(methods=methods))
    variant = values.get("variant", "default")
    tasks = compare_tasks(curves, rule, variant, values.get("margin", TASK_MARGIN))
    if tasks.empty:
        raise UserError(
            f"no run of variant '{variant}' has published curves of its method and task; "
            "check variant=, methods= and tasks="
        )
    domains = compare_domains(tasks, values.get("domain_margin"))
    print(shown(tasks, domains))
    if "out" in values:
        _write(values["out"], tasks, domains)
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
