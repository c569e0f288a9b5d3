"""Decisions of a study: a function of its claims and of the records of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.records.studies import PUBLISHED
from analysis.stats.equivalence import Difference, if_spread, mean_difference
from analysis.stats.group_sequential import CONTINUE, POSITIVE, Found, Region, next_look, regions
from analysis.stats.least_variance import binomial_variance, lower_quartile, tied_variance
from analysis.stats.moderated_variances import moderated_welch, usual_variance
from sweeps.studies.scores import Scores
from sweeps.studies.study import Claim, Study

WAITING = "waits for runs"
"""State of a claim at a look whose runs have not all ended."""


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


def judge(study: Study, scores: Scores) -> list[Look]:
    """Return the results of all looks so far.

    A claim whose decision is not `CONTINUE` has no result at later looks. The last look of the
    list has claims that wait for runs, or is that at which the last claim was decided.

    Args:
        study: the study.
        scores: scores of its runs.
    """
    claims, expected = study.claims, [claim.expected for claim in study.claims]
    margins = [study.margin_of(claim) for claim in claims]
    decisions = np.full(len(claims), CONTINUE, dtype="U16")
    looks: list[Look] = []
    for index, seeds in enumerate(study.looks):
        was_open = np.flatnonzero(decisions == CONTINUE)
        if not len(was_open):
            break
        chosen = [claims[i] for i in was_open]
        missing = [count_missing(study, scores, claim, seeds) for claim in chosen]
        if any(missing):
            waits = zip(chosen, missing, strict=True)
            looks.append(tuple(LookResult(c, seeds, None, WAITING, n) for c, n in waits))
            break
        usual = usual_variances(study, scores, chosen, seeds)
        gaps = {i: gap_of(study, scores, claims[i], seeds, usual) for i in was_open}
        columns = np.array(
            [
                (g.value, g.error, g.freedom) if (g := gaps.get(i)) else (0.0, 1.0, 1.0)
                for i in range(len(claims))
            ]
        ).T
        decisions, _ = next_look(study.design, index, Found(*columns), expected, margins, decisions)
        positive = np.isin(decisions, POSITIVE)
        results = []
        for i in was_open:
            at = Found.of(gaps[i])
            # A supported claim had its share of the level.
            level = float(study.design.level_of((~positive).sum() + positive[i]))
            bounds = regions(study.design, index, at, expected[i], margins[i], level)
            decision = str(decisions[i])
            results.append(LookResult(claims[i], seeds, gaps[i], decision, regions=tuple(bounds)))
        looks.append(tuple(results))
    return looks


@dataclass(frozen=True)
class Usual:
    """Usual variance of a task.

    Attributes:
        variance: in points².
        series: series that it averages.
    """

    variance: float
    series: int


def usual_variances(
    study: Study, scores: Scores, claims: Sequence[Claim], seeds: int
) -> dict[str, Usual]:
    """Return the usual variance of each task over the series of some claims.

    Args:
        study: the study.
        scores: scores of its runs.
        claims: the claims that are open at a look.
        seeds: seeds on each side.
    """
    series: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for claim in claims:
        for one in claim.series:
            for task in study.tasks_of(claim):
                series.setdefault(task, {})[one] = scores.of(one, task, seeds)
    return {
        task: Usual(float(usual_variance([*own.values()])), len(own))
        for task, own in series.items()
    }


def gap_of(
    study: Study, scores: Scores, claim: Claim, seeds: int, usual: Mapping[str, Usual]
) -> Difference:
    """Return the difference of a claim with its first seeds, all of which have ended.

    Args:
        study: the study.
        scores: scores of its runs.
        claim: the claim.
        seeds: seeds on each side.
        usual: result of `usual_variances`.
    """
    tasks = study.tasks_of(claim)
    pairs = {task: [scores.of(one, task, seeds) for one in claim.series] for task in tasks}
    spreads = [
        float(np.var(side, ddof=1))
        for task in tasks
        for side in pairs[task]
        if scores.episodes[task] is None
    ]
    smallest = float(lower_quartile(np.array(spreads))) if spreads else 0.0
    gaps = []
    for task, (ours, theirs) in pairs.items():
        episodes, sides = scores.episodes[task], ((ours, theirs), (theirs, ours))
        if episodes is None:
            within = study.design.tied_within
            bounds = [max(smallest, float(tied_variance(*both, within))) for both in sides]
        else:
            bounds = [float(binomial_variance(one, episodes)) for one, _ in sides]
        least = (bounds[0], bounds[1])
        prior = study.design.prior_of(usual[task].series)
        found = moderated_welch(ours, theirs, usual[task].variance, prior, least)
        gaps.append(Difference(*(float(part) for part in found)))
    return if_spread(mean_difference(gaps))


def count_missing(study: Study, scores: Scores, claim: Claim, seeds: int) -> int:
    """Return how many runs of a claim have not ended at a look.

    Args:
        study: the study.
        scores: scores of its runs.
        claim: the claim.
        seeds: seeds on each side.
    """
    return sum(
        int(np.isnan(scores.of(series, task, seeds)).sum())
        for series in claim.series
        if series[1] != PUBLISHED
        for task in study.tasks_of(claim)
    )
