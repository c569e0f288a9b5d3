"""Tables and figures of `ablations/report.py`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.studies import Study, StudyResult, rows_of
from ablations.tables import numbers_of, texts_of
from analysis.figures.effect_plots import Panel, effect_bars, effect_curves
from analysis.figures.figure_specs import FigureSpec, with_reps
from analysis.figures.output import write_figure, write_table, write_texts
from analysis.figures.page import paper_style
from analysis.figures.registry import shipped_catalog
from analysis.figures.study_plots import study_path
from analysis.figures.styles import Layout, Shown
from analysis.records.load import SERIES, Records
from analysis.records.studies import RecordedStudy
from analysis.stats.ablation_effects import task_table
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from tdmpc2.common.system.atomic_files import cannot_write
from tdmpc2.common.system.errors import UserError


def shown_runs(records: Records, studies: Sequence[Study], rule: Rule, reps: int | None) -> Shown:
    """Select the runs that are compared, and the settings of the figures.

    Args:
        records: records of all runs.
        studies: comparisons of an ablation with its base.
        rule: treatment of missing and repeated evaluations.
        reps: number of bootstrap resamples; None for that of the figure catalog.
    """
    catalog = shipped_catalog()
    if reps is not None:
        catalog = with_reps(catalog, reps)
    series = {one for study in studies for one in (study.base, study.variant)}
    mask = [tuple(map(str, key)) in series for key in records.runs[SERIES].to_numpy()]
    records = dataclasses.replace(records, runs=records.runs.loc[mask])
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
            {f.study.name: f.effect for f in members if f.effect is not None},
            {
                "": rows_of(curves, base),
                **{f.study.name: rows_of(curves, f.study.variant) for f in members},
            },
        )
        for (factor, base, _), members in groups.items()
    ]


def _study_figure(out: Path, study: RecordedStudy) -> list[Path]:
    """Draw the path of a study that stops when decided; nothing before its first look."""
    if study.boundaries.empty:
        return []
    with paper_style():
        published = bool(study.tests.get("base_seeds"))
        page = study_path(study.complete, study.boundaries, Layout(), published=published)
        return list(write_figure(out / f"study-{study.name}", [page]))


def write_report(
    out: Path,
    findings: Sequence[StudyResult],
    shown: Shown,
    base: str,
    sequential: Sequence[RecordedStudy],
) -> None:
    """Write tables and figures, and print their folder.

    Args:
        out: folder to write to.
        findings: results of the studies.
        shown: the compared runs.
        base: variant that the ablations are compared with.
        sequential: studies that stop when decided.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / "ablations.csv"]
        write_table(paths[0], numbers_of(findings))
        tables = [
            task_table(f.effect).assign(ablation=f.study.name)
            for f in findings
            if f.effect is not None
        ]
        if tables:
            paths.append(out / "ablation_tasks.csv")
            write_table(paths[-1], pd.concat(tables, ignore_index=True))
        paths += write_texts(out / "ablations", texts_of(findings))
        panels = panels_of(findings, shown.curves)
        if panels:
            with paper_style():
                figure, numbers = effect_curves(panels, shown, base)
                paths += write_figure(out / "curves", [figure])
                paths += write_figure(out / "bars", [effect_bars(panels, shown, base)])
            paths.append(out / "curves.csv")
            write_table(paths[-1], numbers)
        for study in sequential:
            paths += _study_figure(out, study)
    except OSError as error:
        raise UserError(cannot_write(f"to out={out}", error)) from error
    print(f"\nwrote {len(paths)} files to {out}", file=sys.stderr)
