"""Report effects of ablations and verdicts on their claims: `python ablations/report.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.own_specs import read_specs
from ablations.specs import ABLATIONS
from analysis.records.source_options import (
    BY_MAKE_FIGURES,
    RunsOfTasks,
    load_sources,
    report,
)
from analysis.stats.ablation_claims import MARGIN, OPEN
from analysis.stats.rules import get_rule, rule_setting
from tdmpc2.common.run.spec import without_precision
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import POINTS, REPS, STEPS, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root

if TYPE_CHECKING:
    from analysis.records.load import Records

STUDY_NOTE = (
    "The verdicts of the table assume numbers of seeds that were fixed before, and no correction "
    "for several claims: cite the decisions of a study for its claims."
)


@dataclass(frozen=True)
class ReportRequest(RunsOfTasks):
    """Which report to write: the options of the command."""

    rule: str = rule_setting()

    base: str = setting(
        "default", "variant that the ablations are compared with; for runs of --quick: quick"
    )
    spec: Path | None = setting(None, "TOML file with further ablations, as for ablations/run.py")
    env_steps: int | None = setting(
        None,
        "compare at this env step; default: the end of the shorter runs of both sides",
        STEPS,
    )
    margin: float = setting(
        MARGIN, "largest difference that counts as no difference, in points", POINTS
    )
    reps: int | None = setting(
        None, "simulated studies that measure coverages, at most 1,000; default: that many", REPS
    )
    out: Path | None = setting(
        None,
        "folder for tables and figures; default: paper_figures/ablations; for another base, its "
        "subfolder of that name",
    )


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python ablations/report.py [key=value …]

Compares every ablation that has runs with the default, and judges the claim on it. Reports the
differences of the final scores and of the areas under the learning curves, in points (return / 10,
or success in percent), and the probability that a run of the ablation scores higher than a run of
the default; all averaged over tasks, with 95 % intervals. Prints a table, and writes tables and
figures.

Verdicts on a claim ("lower" or "same" score than the default):
  supported         "lower": the 95 % interval of the difference (Welch) lies below zero;
                    "same": two one-sided tests at 5 % place the difference within the margin
  contradicted      "lower": the data exclude a loss of the margin or more, at 5 %;
                    "same": the 95 % interval of the difference excludes zero
  {OPEN}  neither; the table states how many seeds on each side would decide. Scores that
                    are equal for all seeds have no interval and decide nothing
Without a claim, the verdict is lower, higher, no difference or {OPEN}.
Error rates of the verdicts: docs/ablations.md.

Options:
{cli.describe_fields(ReportRequest)}

Exit code: 0; 1 if no ablation could be compared; 2 for bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code (see `write`)."""
    return write(cli.parse_options(arguments, ReportRequest))


def write(request: ReportRequest) -> int:
    """Print the table of results, and write tables and figures.

    Returns:
        0, or 1 if no ablation has runs to compare.

    Raises:
        UserError: an invalid value, a missing folder, or no runs of any ablation.
    """
    margin, base = request.margin, without_precision(request.base)
    own = read_specs(request.spec) if request.spec is not None else ()
    known = (*own, *ABLATIONS)  # the first of those with equal settings counts
    rule = get_rule(request.rule)
    from ablations.report_files import shown_runs, write_report
    from ablations.studies import find_studies, look
    from ablations.tables import text_of
    from analysis.records.studies import read_studies
    from analysis.stats.study_results import describe_study

    records = load_sources(request).select(methods=["tdmpc2"])
    report(records.problems, BY_MAKE_FIGURES)
    studies = find_studies(records.runs, base, known)
    if not studies:
        raise UserError(_nothing(records, base))
    shown = shown_runs(records, studies, rule, request.reps)
    how = (shown.curves, shown.rule, shown.bootstrap)
    findings = [look(study, *how, at=request.env_steps, margin=margin) for study in studies]
    print(text_of(findings, margin))
    sequential, problems = read_studies(request.folders())
    for study in sequential:
        print(describe_study(study))
    if sequential:
        print(STUDY_NOTE)
    report(problems, BY_MAKE_FIGURES)
    write_report(request.out or _out_dir(base), findings, shown, base, sequential)
    return 0 if any(finding.effect for finding in findings) else 1


def _out_dir(base: str) -> Path:
    """Return the default folder for the report of a base."""
    folder = project_root() / "paper_figures" / "ablations"
    return folder if base == "default" else folder / base


def _nothing(records: Records, base: str) -> str:
    """Explain why there is nothing to report."""
    variants = sorted({str(variant).split("[")[0] for variant in records.runs["variant"]})
    if not variants:
        return "no run of tdmpc2; train some with python ablations/run.py, or set runs="
    if base not in variants:
        return f"no runs of the variant '{base}' (available: {', '.join(variants)}); set base="
    return f"no runs of an ablation of '{base}'; train some with python ablations/run.py"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
