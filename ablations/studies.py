"""Which runs are an ablation of which others, by their settings; and what they say of its claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablations.specs import FACTORS, Ablation, find
from ablations.verdicts import MARGIN, OPEN, ClaimVerdict, judge, seeds_needed
from analysis.figures.styles import of_series
from analysis.records.load import SERIES
from analysis.stats.ablation_effects import Effect, effect_of
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import Rule, ScoreCurves
from analysis.stats.selection import Series
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import TaskSwitches, part


@dataclass(frozen=True)
class Study:
    """An ablation that was run.

    Attributes:
        ablation: what it takes back.
        base: series of the runs it is compared with.
        variant: series of its own.
    """

    ablation: Ablation
    base: Series
    variant: Series


@dataclass(frozen=True)
class StudyResult:
    """What came of a study.

    Attributes:
        study: which.
        effect: None where there is nothing to compare yet.
        verdict: on the claim, or what the data show where there is none.
        seeds_needed: on each side, for an open verdict; None where too many or not to be said.
        missing: what is not there, in words.
    """

    study: Study
    effect: Effect | None
    verdict: ClaimVerdict
    seeds_needed: int | None
    missing: tuple[str, ...]


def find_studies(runs: pd.DataFrame, base: str, known: Sequence[Ablation]) -> list[Study]:
    """The ablations among these runs, in the order of factors and of the table.

    A series is an ablation of the base where its settings differ in exactly what an ablation, or a
    combination of up to three, changes.

    Args:
        runs: of `Records`, of TD-MPC2 on single tasks.
        base: variant that they are compared with.
        known: the ablations there are.
    """
    series: dict[Series, dict[str, Any]] = {}
    for key, members in runs.groupby(SERIES, sort=False):
        settings = _settings(members["overrides"].iloc[0])
        if settings is not None:
            series[tuple(map(str, key))] = settings
    order = {one.name: place for place, one in enumerate(known)}
    found = []
    for ours, settings in series.items():
        for theirs, plain in series.items():
            alike = ours[:2] == theirs[:2] and ours[3:] == theirs[3:]
            if ours == theirs or not alike or theirs[2].split("[")[0] != base:
                continue
            changed = {key: settings[key] for key in plain if settings[key] != plain[key]}
            ablation = find(changed, known) if changed else None
            if ablation is not None:
                found.append(Study(ablation, theirs, ours))
    places = {factor: place for place, factor in enumerate(FACTORS)}

    def place(study: Study) -> tuple[int, int, str]:
        one = study.ablation
        return places.get(one.factor, len(places)), order.get(one.name, len(order)), one.name

    return sorted(found, key=place)


def _settings(overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """Everything that decides how a run learns; None for settings that there are no more."""
    own, switches = part(overrides)
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
    """The effect of an ablation and the verdict on its claim.

    Args:
        study: which.
        curves: of all runs.
        rule: what counts where a step was not recorded.
        bootstrap: how intervals are drawn.
        at: env step at which scores are read; the end if None.
        margin: points that count as no difference.
    """
    rows = [rows_of(curves, series) for series in (study.base, study.variant)]
    if not all(map(len, rows)):
        return StudyResult(study, None, OPEN, None, ("no evaluation yet",))
    effect, missing = effect_of(curves, rows[0], rows[1], rule, bootstrap, at=at)
    if effect is None:
        return StudyResult(study, None, OPEN, None, missing)
    expected = study.ablation.expected
    verdict = judge(effect.welch, expected, margin)
    needed = seeds_needed(effect.pairs(), expected, margin) if verdict == OPEN else None
    return StudyResult(study, effect, verdict, needed, missing)


def rows_of(curves: ScoreCurves, series: Series) -> np.ndarray:
    """Rows of `curves.runs` that belong to a series."""
    return of_series(curves.runs, series).index.to_numpy()
