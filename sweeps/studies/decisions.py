"""Decisions of a study: a function of its claims and of the records of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.records.evaluations import is_success
from analysis.stats.ablation_effects import POINTS
from analysis.stats.equivalence import Difference, difference, mean_difference
from analysis.stats.group_sequential import CONTINUE, POSITIVE, Found, Region, next_look, regions
from analysis.stats.least_variance import binomial_variance, lower_quartile
from sweeps.planning.planned_run import PlannedRun
from sweeps.studies.study import Claim, Study

WAITING = "waits for runs"
"""State of a claim at a look whose runs have not all ended."""


@dataclass(frozen=True)
class Scores:
    """Scores of the runs of a study.

    Attributes:
        points: scores in points by method, variant and task, `(num_seeds,)` in the order of the
            study's seeds; NaN for a run that has not ended, or has no evaluation.
        episodes: episodes that each score of a task averages, if it is a success rate; else None.
    """

    points: Mapping[tuple[str, str, str], np.ndarray]
    episodes: Mapping[str, int | None]


@dataclass(frozen=True)
class LookResult:
    """What a look says of a claim.

    Attributes:
        claim: the claim.
        seeds: seeds on each side.
        gap: variant minus base, mean over tasks, in points; None while runs are missing.
        decision: result of `group_sequential.decide`, or `WAITING`.
        missing: number of runs that have not ended.
        regions: differences that lead to a decision at this look.
    """

    claim: Claim
    seeds: int
    gap: Difference | None
    decision: str
    missing: int = 0
    regions: tuple[Region, ...] = ()


Look = tuple[LookResult, ...]
"""Results of one look, of the claims that were open before it."""


def read_scores(study: Study, planned: Sequence[PlannedRun], runs: Path) -> Scores:
    """Read the scores of all runs of a study that have ended.

    Args:
        study: the study.
        planned: runs of all its series, tasks and seeds.
        runs: folder of all runs.
    """
    from analysis.records.load import load
    from analysis.stats.ragged_curves import ScoreCurves
    from analysis.stats.rules import RULES

    curves = ScoreCurves(load(runs))
    rows = {str(one.directory): index for index, one in enumerate(curves.runs.itertuples())}
    points: dict[tuple[str, str, str], np.ndarray] = {}
    episodes: dict[str, int | None] = dict.fromkeys(study.tasks)
    for run in planned:
        spec = run.spec
        key = (spec.method, spec.variant, spec.task)
        own = points.setdefault(key, np.full(len(study.seeds), np.nan))
        row = rows.get(str(run.directory))
        if row is None or spec.seed not in study.seeds:
            continue
        steps = np.array([study.tasks[spec.task]])
        found = curves.values([row], steps, RULES["linear"], normalized=True)
        own[study.seeds.index(spec.seed)] = POINTS * float(found[0, 0])
        if is_success(curves.runs.at[row, "score"]):
            episodes[spec.task] = int(str(curves.runs.at[row, "eval_episodes"]))
    return Scores(points, episodes)


def judge(study: Study, scores: Scores) -> list[Look]:
    """Return the results of all looks so far.

    A claim whose decision is not `CONTINUE` has no result at later looks. The last look of the
    list has claims that wait for runs, or is that at which the last claim was decided.

    Args:
        study: the study.
        scores: scores of its runs.
    """
    claims, expected = study.claims, [claim.expected for claim in study.claims]
    decisions = np.full(len(claims), CONTINUE, dtype="U16")
    looks: list[Look] = []
    for index, seeds in enumerate(study.looks):
        was_open = np.flatnonzero(decisions == CONTINUE)
        if not len(was_open):
            break
        gaps = {i: gap_of(study, scores, claims[i], seeds) for i in was_open}
        if None in gaps.values():
            waits = [(claims[i], count_missing(study, scores, claims[i], seeds)) for i in was_open]
            looks.append(tuple(LookResult(c, seeds, None, WAITING, n) for c, n in waits))
            break
        columns = np.array(
            [
                (g.value, g.error, g.freedom) if (g := gaps.get(i)) else (0.0, 1.0, 1.0)
                for i in range(len(claims))
            ]
        ).T
        decisions, _ = next_look(
            study.design, index, Found(*columns), expected, study.margin, decisions
        )
        level = float(study.design.level_of((~np.isin(decisions, POSITIVE)).sum()))
        results = []
        for i in was_open:
            gap = gaps[i]
            assert gap is not None
            at = Found.of(gap)
            bounds = regions(study.design, index, at, expected[i], study.margin, level)
            decision = str(decisions[i])
            results.append(LookResult(claims[i], seeds, gap, decision, regions=tuple(bounds)))
        looks.append(tuple(results))
    return looks


def gap_of(study: Study, scores: Scores, claim: Claim, seeds: int) -> Difference | None:
    """Return the difference of a claim with its first seeds; None while one of its runs is missing.

    Args:
        study: the study.
        scores: scores of its runs.
        claim: the claim.
        seeds: seeds on each side.
    """
    sides = [_side(scores, series, study.tasks, seeds) for series in claim.series]
    if any(np.isnan(task).any() for side in sides for task in side):
        return None
    by_return = [i for i, task in enumerate(study.tasks) if scores.episodes[task] is None]
    spreads = [float(np.var(side[i], ddof=1)) for side in sides for i in by_return]
    usual = float(lower_quartile(np.array(spreads))) if spreads else 0.0
    gaps = []
    for ours, theirs, task in zip(*sides, study.tasks, strict=True):
        episodes, least = scores.episodes[task], (usual, usual)
        if episodes is not None:
            bounds = [float(binomial_variance(one, episodes)) for one in (ours, theirs)]
            least = (bounds[0], bounds[1])
        gaps.append(difference(ours, theirs, least))
    return mean_difference(gaps)


def count_missing(study: Study, scores: Scores, claim: Claim, seeds: int) -> int:
    """Return how many runs of a claim have not ended at a look.

    Args:
        study: the study.
        scores: scores of its runs.
        claim: the claim.
        seeds: seeds on each side.
    """
    sides = (_side(scores, series, study.tasks, seeds) for series in claim.series)
    return sum(int(np.isnan(task).sum()) for side in sides for task in side)


def _side(
    scores: Scores, series: tuple[str, str], tasks: Mapping[str, int], seeds: int
) -> list[np.ndarray]:
    """Return the scores of a series with its first seeds on each task."""
    return [scores.points[(*series, task)][:seeds] for task in tasks]
