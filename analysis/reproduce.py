"""Command: compare our runs with the published curves and scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.progress import doing
from analysis.records.source_options import (
    BY_MAKE_FIGURES,
    NO_RELEASED_CURVES,
    load_sources,
    report,
)
from analysis.stats.margins import (
    DOMAIN_MARGINS,
    LARGEST_MARGIN,
    NOT_JUDGED,
    OPEN,
    OTHER_MARGIN,
    PAPER_UPDATES,
    SO_FAR,
    TASK_MARGIN,
    UNSETTLED,
)
from analysis.stats.rules import Rule, ScoreOptions, get_rule
from tdmpc2.common.run.spec import without_precision
from tdmpc2.common.system.atomic_files import cannot_write
from tdmpc2.common.system.cli import command, describe_fields, parse_options
from tdmpc2.common.system.config_checks import POINTS, setting
from tdmpc2.common.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.load import Records


@dataclass(frozen=True)
class ReproduceOptions(ScoreOptions):
    """Options of the command."""

    methods: str | None = setting(None, "compare only these methods, NAME,NAME; default: all")
    variant: str = setting("default", "variant of our runs to compare")
    margin: float = setting(TASK_MARGIN, "equivalence margin for a task, in points", POINTS)
    domain_margin: float | None = setting(
        None,
        "equivalence margin for the mean over a domain or task set, in points; default: "
        f"{DOMAIN_MARGINS['tdmpc2']:g} for tdmpc2, {OTHER_MARGIN:g} for other methods, or the "
        f"smallest that the published seeds can settle, up to {LARGEST_MARGIN:g}",
        POINTS,
    )
    plan: bool = setting(
        False,
        "compare nothing; print for each domain the smallest loss that is found with 80 % "
        "probability, and the seeds that the margin needs",
    )
    seeds: int = setting(3, "planned seeds of each task, with plan=true", low=2, high=1000)
    out: Path | None = setting(
        None,
        "write reproduction_tasks, reproduction_domains and reproduction_multitask (.csv, .md, "
        ".tex) to this folder; default: print the tables only",
    )


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python analysis/reproduce.py [key=value …]
       python analysis/reproduce.py plan=true [seeds=N] [key=value …]

Compares our runs with the published curves of the same method and task. A score is the mean of the
last five evaluations that both sides have (fewer are stated); step 0 never counts, and a seed that
has not come as far as most others is left out and named. The tables list the difference of the
means in points (return / 10, or success in percent) with its 95 % confidence interval (Welch), the
share of the paper's tasks and budget, and a verdict:

  reproduced       the difference lies within the margin (equivalence test: two one-sided tests
                   at 5 %); '{SO_FAR}' below the full budget
  worse, better    not equivalent, and significant after correction for the number of tests (tasks:
                   false discovery rate 5 %; domains: family-wise error rate 5 %)
  {OPEN}  neither; the table states which outcome more seeds would settle
  {UNSETTLED}
                   (domains) the published seeds vary too much for any margin up to
                   {LARGEST_MARGIN:g} points

Multi-task agents are compared with the paper's scores after {PAPER_UPDATES:,} updates. A score of
the paper without runs, and runs without a score of the paper or with fewer updates, are listed as
'{NOT_JUDGED}' and not judged. Only this comparison needs no published
curves.

{describe_fields(ReproduceOptions)}

plan=true states, before any run, what a comparison would find with that many seeds of yours, from
the spread of the published seeds. The loss of a domain is tested at the level of the first step of
Holm's correction over all domains listed.

Exit code, from the means over domains that can be settled and over task sets: 0 all are reproduced
at the full budget, or better; 1 at least one is worse; 2 bad input; 3 none is worse, but at least
one has not enough data or is '{SO_FAR}', or nothing is judged."""


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
    options = replace(options, variant=without_precision(options.variant))
    rule = get_rule(options.rule)
    if options.plan:
        return _plan(options)
    from analysis.stats.against_published import compare_domains, compare_tasks
    from analysis.stats.equivalence_tables import domain_texts, shown, task_texts
    from analysis.stats.gate import exit_code, judge
    from analysis.stats.multitask_claims import agent_texts, claims_text
    from analysis.stats.ragged_curves import ScoreCurves

    records = load_sources(options, multitask=True, released="beside runs")
    report(records.problems, BY_MAKE_FIGURES)
    methods = options.methods.split(",") if options.methods is not None else ()
    records = records.select(methods=methods)
    with doing("comparing the runs with the published curves"):
        found = compare_tasks(ScoreCurves(records), rule, options.variant, options.margin)
        agents = _compare_agents(records, rule, options)
    tasks = found.tasks
    if tasks.empty and not agents["num_ours"].any():
        raise UserError(_nothing(options, found.left_out))
    domains, agents = judge([compare_domains(found, options.domain_margin), agents])
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    if len(tasks):
        print(shown(tasks, domains, found.left_out), end="\n\n")
        tables |= {"tasks": (tasks, task_texts(tasks)), "domains": (domains, domain_texts(domains))}
    if len(agents):
        print(claims_text(agents))
    if agents["num_ours"].any():
        tables["multitask"] = (agents, agent_texts(agents))
    if options.out is not None:
        _write(options.out, tables)
    return exit_code([domains, agents])


def _plan(options: ReproduceOptions) -> int:
    """Print the power of a comparison with the published curves, before any run.

    Raises:
        UserError: there are no published curves of the chosen methods and tasks.
    """
    from analysis.records.load import load_curves
    from analysis.records.source_options import BY_MAKE_FIGURES, on_tasks
    from analysis.records.sources import PUBLISHED
    from analysis.stats.ragged_curves import ScoreCurves
    from analysis.stats.reproduction_power import power_lines, reproduction_power

    folder = options.needed_released()
    with doing(f"reading {folder}"):
        records = load_curves(folder, PUBLISHED)
    report(records.problems, BY_MAKE_FIGURES)
    records = records.select(methods=options.methods.split(",") if options.methods else ())
    tasks = set() if options.tasks is None else set(on_tasks(records, options.tasks).names())
    curves = ScoreCurves(records)
    lines = power_lines(reproduction_power(curves, options.seeds, options.domain_margin, tasks))
    if not lines:
        raise UserError(f"{folder}: no curves of the chosen methods; check methods= and tasks=")
    print("With 80 % probability, at the full budget (ranges: 95 %, from the published spread):")
    print("\n".join(lines))
    return 0


def _compare_agents(records: Records, rule: Rule, options: ReproduceOptions) -> pd.DataFrame:
    """Compare the multi-task agents with the paper's scores.

    Scores without a run are only listed if no option excludes runs.
    """
    from analysis.figures.registry import shipped_catalog
    from analysis.figures.scaling_plots import paper_scores, scaling_spec
    from analysis.records.evaluations import NUM_UPDATES
    from analysis.stats.multitask_claims import compare_agents
    from analysis.stats.ragged_curves import ScoreCurves

    margin = options.domain_margin or DOMAIN_MARGINS["tdmpc2"]
    scores = paper_scores(scaling_spec(shipped_catalog()))
    curves = ScoreCurves(records, NUM_UPDATES)
    agents = compare_agents(curves, scores, rule, options.variant, margin)
    excluding = options.methods or options.tasks or options.variant != "default"
    return agents[agents["num_ours"] > 0] if excluding else agents


def _nothing(options: ReproduceOptions, left_out: Sequence[str]) -> str:
    """Explain why there is nothing to compare."""
    if options.released() is None:
        return NO_RELEASED_CURVES
    return (
        f"no run of variant '{options.variant}' has published curves of its method and task; "
        "check variant=, methods= and tasks=" + (f" ({left_out[0]})" if left_out else "")
    )


def _write(out: Path, tables: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> None:
    """Write each table as numbers and as text."""
    from analysis.figures.output import write_table, write_texts

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, (numbers, texts) in tables.items():
            write_table(out / f"reproduction_{name}.csv", numbers)
            print(out / f"reproduction_{name}.csv", file=sys.stderr)
            for path in write_texts(out / f"reproduction_{name}", texts):
                print(path, file=sys.stderr)
    except OSError as error:
        raise UserError(cannot_write(f"to out={out}", error)) from error


if __name__ == "__main__":
    sys.exit(command(main, usage))
