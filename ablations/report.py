"""Report effects of ablations and verdicts on their claims: `python ablations/report.py`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.specs import ABLATIONS, read_specs
from ablations.studies import Study, StudyResult, find_studies, look, rows_of
from ablations.tables import numbers_of, text_of, texts_of
from ablations.verdicts import MARGIN, OPEN
from analysis.figures.effect_plots import Panel, effect_bars, effect_curves
from analysis.figures.figure_specs import REPS, FigureSpec, with_reps
from analysis.figures.output import write_figure, write_table, write_texts
from analysis.figures.page import paper_style
from analysis.figures.registry import shipped_catalog
from analysis.figures.styles import Shown
from analysis.records.load import RUNS_SOURCE, SERIES, Records
from analysis.records.source_options import load_sources, report
from analysis.stats.ablation_effects import task_table
from analysis.stats.ragged_curves import ScoreCurves, ScoreOptions, get_rule
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import POINTS, STEPS, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root


@dataclass(frozen=True)
class ReportOptions(ScoreOptions):
    """Options of the command."""

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
        None, "number of bootstrap resamples; default: the value in figures.toml", REPS
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
  {OPEN}  neither; the table states how many seeds on each side would decide
Without a claim, the verdict is lower, higher, no difference or {OPEN}.
Error rates of the verdicts: docs/ablations.md.

Options:
{cli.describe_fields(ReportOptions)}

Exit code: 0; 1 if no ablation could be compared; 2 for bad input."""


def main(arguments: Sequence[str]) -> int:
    """Print the table of results, and write tables and figures.

    Returns:
        0, or 1 if no ablation has runs to compare.

    Raises:
        UserError: an invalid argument, a missing folder, or no runs of any ablation.
    """
    options = cli.parse_options(arguments, ReportOptions)
    margin, base = options.margin, options.base
    known = (*ABLATIONS, *(read_specs(options.spec) if options.spec is not None else ()))
    records = load_sources(options).select(sources=[RUNS_SOURCE], methods=["tdmpc2"])
    report(records.problems)
    studies = find_studies(records.runs, base, known)
    if not studies:
        raise UserError(_nothing(records, base))
    shown = _shown(records, studies, options)
    how = (shown.curves, shown.rule, shown.bootstrap)
    findings = [look(study, *how, at=options.env_steps, margin=margin) for study in studies]
    print(text_of(findings, margin))
    _write(options.out or _out_dir(base), findings, shown, base)
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


def _shown(records: Records, studies: Sequence[Study], options: ReportOptions) -> Shown:
    """Select the runs that are compared, and the settings of the figures."""
    catalog = shipped_catalog()
    if options.reps is not None:
        catalog = with_reps(catalog, options.reps)
    series = {one for study in studies for one in (study.base, study.variant)}
    mask = [tuple(map(str, key)) in series for key in records.runs[SERIES].to_numpy()]
    records = dataclasses.replace(records, runs=records.runs.loc[mask])
    rule = get_rule(options.rule)
    spec = FigureSpec("ablations", "aggregate_curve", "ablations")
    return Shown(spec, records, ScoreCurves(records), rule, catalog)


def panels_of(findings: Sequence[StudyResult], curves: ScoreCurves) -> list[Panel]:
    """Build one figure panel per factor, base and set of compared tasks."""
    groups: dict[tuple[Any, ...], list[StudyResult]] = {}
    for finding in findings:
        if finding.effect is not None:
            key = (finding.study.ablation.factor, finding.study.base, finding.effect.tasks)
            groups.setdefault(key, []).append(finding)
    return [
        Panel(
            factor,
            {f.study.ablation.variant: f.effect for f in members if f.effect is not None},
            {
                "": rows_of(curves, base),
                **{f.study.ablation.variant: rows_of(curves, f.study.variant) for f in members},
            },
        )
        for (factor, base, _), members in groups.items()
    ]


def _write(out: Path, findings: Sequence[StudyResult], shown: Shown, base: str) -> None:
    """Write tables and figures, and print their folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / "ablations.csv", out / "ablation_tasks.csv"]
        write_table(paths[0], numbers_of(findings))
        tables = [
            task_table(f.effect).assign(ablation=f.study.ablation.variant)
            for f in findings
            if f.effect is not None
        ]
        if tables:
            write_table(paths[1], pd.concat(tables, ignore_index=True))
        paths += write_texts(out / "ablations", texts_of(findings))
        panels = panels_of(findings, shown.curves)
        if panels:
            with paper_style():
                figure, numbers = effect_curves(panels, shown, base)
                paths += write_figure(out / "curves", [figure])
                paths += write_figure(out / "bars", [effect_bars(panels, shown, base)])
            write_table(out / "curves.csv", numbers)
    except OSError as error:
        raise UserError(f"cannot write to out={out}: {error}") from error
    print(f"\nwrote {len(paths)} files to {out}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
