"""What the ablations say so far: effects, claims and verdicts: `python ablations/report.py`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.specs import ABLATIONS, read_specs
from ablations.studies import Study, StudyResult, find_studies, look, rows_of
from ablations.tables import numbers_of, text_of, texts_of
from ablations.verdicts import MARGIN, OPEN
from analysis.figures.effect_plots import Panel, effect_bars, effect_curves
from analysis.figures.figure_specs import FigureSpec, with_reps
from analysis.figures.output import write_figure, write_table, write_texts
from analysis.figures.page import paper_style
from analysis.figures.registry import shipped_catalog
from analysis.figures.styles import Shown
from analysis.records.load import RUNS_SOURCE, SERIES, Records
from analysis.records.source_options import SOURCE_OPTIONS, load_sources, report, usage_of_sources
from analysis.stats.ablation_effects import task_table
from analysis.stats.ragged_curves import DEFAULT_RULE, ScoreCurves, get_rule, usage_of_rules
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root

OWN_OPTIONS: dict[str, Any] = {
    "base": str,
    "spec": Path,
    "env_steps": int,
    "margin": float,
    "reps": int,
    "out": Path,
}


def usage() -> str:
    """What `--help` prints."""
    return f"""\
Compares every ablation there are runs of with the default: difference of the final scores and of
the areas under the curves, in points (return / 10, success in per cent), averaged over tasks, with
95 % intervals; probability that a run of the variant beats one of the default; and a verdict on
the claim, whose error rates docs/ablations.md states.

  supported     "lower": the difference's 95 % interval (Welch) lies below zero;
                "same": two one-sided tests at 5 % place it within the margin
  contradicted  the data exclude a loss of the margin ("lower"), or no difference ("same")
  {OPEN}
                neither; the table says how many on each side would settle it

usage: python ablations/report.py [key=value ...]

{usage_of_sources()}
{usage_of_rules()}
  base=VARIANT   what they are compared with (default: default; of --quick runs: quick)
  spec=FILE      ablations of your own, as for ablations/run.py
  env_steps=N    compare at this step (default: at the end of the shorter side)
  margin=POINTS  what counts as no difference (default: {MARGIN:g})
  reps=N         bootstrap resamples
  out=DIR        where tables and figures go (default: {_out_dir("default")}, for another
                 base its name below)"""


def main(arguments: Sequence[str]) -> int:
    """Prints the table, and writes it with the figures.

    Returns:
        0; 1 where no ablation has a run to compare.

    Raises:
        UserError: unknown argument, a folder that is missing, no ablation among the runs.
    """
    values = cli.parse_arguments(arguments, {**SOURCE_OPTIONS, **OWN_OPTIONS})
    margin, at = values.get("margin", MARGIN), values.get("env_steps")
    for key, value in (("margin", margin), ("env_steps", at)):
        if value is not None and not value > 0:
            raise UserError(f"{key}={value:g}: must be above 0")
    known = (*ABLATIONS, *(read_specs(values["spec"]) if "spec" in values else ()))
    base = values.get("base", "default")
    records = load_sources(values).select(sources=[RUNS_SOURCE], methods=["tdmpc2"])
    report(records.problems)
    studies = find_studies(records.runs, base, known)
    if not studies:
        raise UserError(_nothing(records, base))
    shown = _shown(records, studies, values)
    how = (shown.curves, shown.rule, shown.bootstrap)
    findings = [look(study, *how, at=at, margin=margin) for study in studies]
    print(text_of(findings, margin))
    _write(values.get("out", _out_dir(base)), findings, shown, base)
    return 0 if any(finding.effect for finding in findings) else 1


def _out_dir(base: str) -> Path:
    """Home of the report's files."""
    home = project_root() / "paper_figures" / "ablations"
    return home if base == "default" else home / base


def _nothing(records: Records, base: str) -> str:
    """Why there is nothing to report."""
    there = sorted({str(variant).split("[")[0] for variant in records.runs["variant"]})
    if base not in there:
        return f"no runs of the variant '{base}' (there are {', '.join(there)}); use base="
    return f"no runs of an ablation of '{base}'; python ablations/run.py makes some"


def _shown(records: Records, studies: Sequence[Study], values: dict[str, Any]) -> Shown:
    """The runs that are compared, and how."""
    catalog = shipped_catalog()
    if "reps" in values:
        catalog = with_reps(catalog, values["reps"])
    series = {one for study in studies for one in (study.base, study.variant)}
    mask = [tuple(map(str, key)) in series for key in records.runs[SERIES].to_numpy()]
    records = dataclasses.replace(records, runs=records.runs.loc[mask])
    rule = get_rule(values.get("rule", DEFAULT_RULE))
    spec = FigureSpec("ablations", "aggregate_curve", "ablations")
    return Shown(spec, records, ScoreCurves(records), rule, catalog)


def panels_of(findings: Sequence[StudyResult], curves: ScoreCurves) -> list[Panel]:
    """A panel for each factor, and for each set of tasks and base that its ablations share."""
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
    """Writes tables and figures, and prints where."""
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
    print(f"\n{len(paths)} files in {out}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
