"""Find ablations among recorded runs by their settings, and judge the claims on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablations.specs import FACTORS, Ablation, find
from ablations.verdicts import seeds_needed
from analysis.figures.styles import of_series
from analysis.records.load import SERIES
from analysis.records.run_reader import conditions_of
from analysis.stats.ablation_claims import MARGIN, OPEN, ClaimVerdict, judge
from analysis.stats.ablation_effects import Effect, effect_of
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule
from analysis.stats.selection import Series
from tdmpc2.common.run.spec import algorithm_settings
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import TaskSwitches, part


@dataclass(frozen=True)
class Study:
    """An ablation that has runs, and the runs that it is compared with.

    Attributes:
        ablation: the ablation: the design choice that it disables or replaces.
        base: series of the runs that it is compared with.
        variant: series of its own runs.
    """

    ablation: Ablation
    base: Series
    variant: Series

    @property
    def name(self) -> str:
        """Name in tables and figures: that of the ablation, and what is not the paper's."""
        conditions = conditions_of(self.variant[2])
        return self.ablation.variant + (f" [{', '.join(conditions)}]" if conditions else "")


@dataclass(frozen=True)
class StudyResult:
    """Result of an ablation study.

    Attributes:
        study: the study.
        effect: effect of the ablation on the score; None if there is nothing to compare yet.
        verdict: verdict on the claim; without a claim, the direction of the effect.
        seeds_needed: seeds on each side that would decide an open verdict; None if the verdict is
            not open, more than `MOST_SEEDS` are needed, or a side has a single seed.
        missing: descriptions of missing tasks, seeds and evaluations.
    """

    study: Study
    effect: Effect | None
    verdict: ClaimVerdict
    seeds_needed: int | None
    missing: tuple[str, ...]


def find_studies(runs: pd.DataFrame, base: str, known: Sequence[Ablation]) -> list[Study]:
    """Find the ablations among some runs, in the order of factors and of the table.

    A series is an ablation of the base if their settings differ in exactly what one ablation, or a
    combination of several, changes. Observations, assets and physics must be equal.

    Args:
        runs: table `runs` of `Records`, restricted to TD-MPC2 on single tasks.
        base: name of the variant that they are compared with.
        known: all defined ablations.
    """
    series: dict[Series, dict[str, Any]] = {}
    for key, members in runs.groupby(SERIES, sort=False):
        settings = _settings(members["overrides"].iloc[0])
        if settings is not None:
            series[tuple(map(str, key))] = settings
    studies = []
    for variant, settings in series.items():
        for reference, base_settings in series.items():
            # The third field of a series is its variant name; all others must be equal.
            comparable = variant[:2] == reference[:2] and variant[3:] == reference[3:]
            comparable &= conditions_of(variant[2]) == conditions_of(reference[2])
            if variant == reference or not comparable or reference[2].split("[")[0] != base:
                continue
            changed = {k: settings[k] for k in base_settings if settings[k] != base_settings[k]}
            ablation = find(changed, known) if changed else None
            if ablation is not None:
                studies.append(Study(ablation, reference, variant))
    factor_order = {factor: index for index, factor in enumerate(FACTORS)}
    table_order = {one.name: index for index, one in enumerate(known)}

    def position(study: Study) -> tuple[int, int, str]:
        one = study.ablation
        factor = factor_order.get(one.factor, len(factor_order))
        return factor, table_order.get(one.name, len(table_order)), one.name

    return sorted(studies, key=position)


def _settings(overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return all settings of the algorithm; None if an override is no longer valid."""
    own, switches = part(algorithm_settings(overrides))
    try:
        return {**vars(TDMPC2Config.make(**own)), **vars(TaskSwitches(**switches))}
    except UserError:
        return None


def look(
    study: Study,
    curves: ScoreCurves,
    rule: Rule,
    bootstrap: Bootstrap,
    *,
    at: int | None = None,
    margin: float = MARGIN,
) -> StudyResult:
    """Compute the effect of an ablation and the verdict on its claim.

    Args:
        study: the study.
        curves: learning curves of all runs.
        rule: how scores at steps without a recorded evaluation are determined.
        bootstrap: number of simulated studies that measure the coverage of intervals, and seed.
        at: env step at which scores are compared; the end of the shorter side if None.
        margin: largest difference, in points, that counts as no difference.
    """
    rows = [rows_of(curves, series) for series in (study.base, study.variant)]
    if not all(map(len, rows)):
        return StudyResult(study, None, OPEN, None, ("no evaluation yet",))
    effect, missing = effect_of(curves, rows[0], rows[1], rule, bootstrap, at=at)
    if effect is None:
        return StudyResult(study, None, OPEN, None, missing)
    expected = study.ablation.expected
    verdict = judge(effect.final, expected, margin)
    needed = seeds_needed(effect.pairs(), expected, margin) if verdict == OPEN else None
    return StudyResult(study, effect, verdict, needed, missing)


def rows_of(curves: ScoreCurves, series: Series) -> np.ndarray:
    """Return the row labels of `curves.runs` that belong to a series."""
    return of_series(curves.runs, series).index.to_numpy()
