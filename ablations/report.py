"""Report effects of ablations and verdicts on their claims: `python ablations/report.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.claims import MARGIN, OPEN
from ablations.specs import ABLATIONS, read_specs
from analysis.records.source_options import SOURCE_OPTIONS, load_sources, report, usage_of_sources
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.rules import DEFAULT_RULE, get_rule, usage_of_rules
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root

if TYPE_CHECKING:
    from analysis.records.load import Records

OWN_OPTIONS: dict[str, Any] = {
    "base": str,
    "spec": Path,
    "env_steps": int,
    "margin": float,
    "reps": int,
    "out": Path,
}


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
  {OPEN}  neither; the table states how many seeds on each side would decide
Without a claim, the verdict is lower, higher, no difference or {OPEN}.
Error rates of the verdicts: docs/ablations.md.

Options:
{usage_of_sources()}
{usage_of_rules()}
  base=VARIANT   variant that the ablations are compared with (default: default; for runs of
                 --quick: quick)
  spec=FILE      TOML file with further ablations, as for ablations/run.py
  env_steps=N    compare at this env step (default: the end of the shorter runs of both sides)
  margin=POINTS  largest difference that counts as no difference (default: {MARGIN:g})
  reps=N         number of bootstrap resamples
  out=DIR        folder for tables and figures (default: {_out_dir("default")};
                 for another base, its subfolder of that name)

Exit code: 0; 1 if no ablation could be compared; 2 for bad input."""


def main(arguments: Sequence[str]) -> int:
    """Print the table of results, and write tables and figures.

    Returns:
        0, or 1 if no ablation has runs to compare.

    Raises:
        UserError: an invalid argument, a missing folder, or no runs of any ablation.
    """
    values = cli.parse_arguments(arguments, {**SOURCE_OPTIONS, **OWN_OPTIONS})
    margin, at = values.get("margin", MARGIN), values.get("env_steps")
    for key, value in (("margin", margin), ("env_steps", at)):
        if value is not None and not value > 0:
            raise UserError(f"{key}={value:g}: must be above 0")
    known = (*ABLATIONS, *(read_specs(values["spec"]) if "spec" in values else ()))
    base = values.get("base", "default")
    rule = get_rule(values.get("rule", DEFAULT_RULE))
    # These import pandas and matplotlib.
    from ablations.report_files import shown_runs, write_report
    from ablations.studies import find_studies, look
    from ablations.tables import text_of

    records = load_sources(values).select(sources=[RUNS_SOURCE], methods=["tdmpc2"])
    report(records.problems)
    studies = find_studies(records.runs, base, known)
    if not studies:
        raise UserError(_nothing(records, base))
    shown = shown_runs(records, studies, rule, values.get("reps"))
    how = (shown.curves, shown.rule, shown.bootstrap)
    findings = [look(study, *how, at=at, margin=margin) for study in studies]
    print(text_of(findings, margin))
    write_report(values.get("out", _out_dir(base)), findings, shown, base)
    return 0 if any(finding.effect for finding in findings) else 1


def _out_dir(base: str) -> Path:
    """Return the default folder for the report of a base."""
    folder = project_root() / "paper_figures" / "ablations"
    return folder if base == "default" else folder / base


def _nothing(records: Records, base: str) -> str:
    """Explain why there is nothing to report."""
    variants = sorted({str(variant).split("[")[0] for variant in records.runs["variant"]})
    if base not in variants:
        return f"no runs of the variant '{base}' (available: {', '.join(variants)}); set base="
    return f"no runs of an ablation of '{base}'; train some with python ablations/run.py"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
