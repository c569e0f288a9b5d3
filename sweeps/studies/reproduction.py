"""Studies that compare runs with the released curves: are they reproduced, domain by domain?

"The paper is reproduced" says that every domain is, so each claim has the whole level of the
equivalence test of `analysis/reproduce.py`; "contradicted" shares its level among the claims.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from analysis.records.source_options import released_curves
from analysis.records.studies import PUBLISHED
from analysis.stats.equivalence import LEVEL
from analysis.stats.group_sequential import Design
from analysis.stats.margins import LARGEST_MARGIN, OTHER_MARGIN, domain_margin, smallest_margin
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.task_variances import PublishedSpread, TaskVariances
from sweeps.planning.request import SweepRequest
from sweeps.studies.running import (
    Series,
    StudyRequest,
    common_tasks,
    run_study,
    settings_of_series,
    with_all_seeds,
)
from sweeps.studies.spread_sources import (
    has_paper_settings,
    read_released,
    released_rows,
    released_spread,
)
from sweeps.studies.study import Claim, Study, parse_looks
from tdmpc2.common.run.spec import RunSpec, parse_seeds
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import TASKS, get_task


def start_reproduction(request: SweepRequest, *, seeds_given: bool) -> int:
    """Run the study that compares every method with its released curves; see `run_study`.

    Args:
        request: request of the sweep.
        seeds_given: whether the user has named the seeds.

    Raises:
        UserError: there are no released curves of these runs, or an invalid request.
    """
    everything = with_all_seeds(request, parse_looks(request.sweep.looks), given=seeds_given)
    study, left_out = make_reproduction(everything)
    print("\n".join(left_out), end="\n" * bool(left_out))
    parts = tuple(
        (*claim.series[0], task) for claim in study.claims for task in study.tasks_of(claim)
    )
    return run_study(StudyRequest(study, replace(everything, parts=parts)))


def make_reproduction(request: SweepRequest) -> tuple[Study, list[str]]:
    """Build the study of a request with all seeds, with a claim per method and domain.

    Args:
        request: result of `with_all_seeds`.

    Returns:
        The study, and a message for each task or domain that no claim is about.

    Raises:
        UserError: there are no released curves of these runs.
    """
    _check_settings(request)
    series, tasks = common_tasks(request)
    curves = _released(request)
    variances = TaskVariances(curves)
    specs = {(run.spec.method, run.spec.task): run.spec for run in request.planned}
    claims, counts, messages = [], [], []
    for one, (domain, names) in itertools.product(series, _by_domain(tasks).items()):
        found = {task: _spread(curves, variances, specs[one[0], task]) for task in names}
        known = {task: spread for task, spread in found.items() if spread is not None}
        missing = [task for task in names if task not in known]
        if missing:
            messages.append(f"{one[0]}: no released curves near the step: {', '.join(missing)}")
        if not known:
            continue
        claim, smallest = _claim(one, domain, known)
        if claim is None:
            messages.append(
                f"{one[0]}, {domain}: left out: the released seeds settle no margin below "
                f"{np.ceil(10 * smallest) / 10:.1f} points (at most {LARGEST_MARGIN:g})"
            )
            continue
        claims.append(claim)
        counts += [spread.num_seeds for spread in known.values()]
    if not claims:
        raise UserError(f"against=published: nothing to compare ({'; '.join(messages)})")
    design = Design(
        parse_looks(request.sweep.looks),
        family_level=min(1.0, LEVEL * len(claims)),
        claim_level=LEVEL,
        against_level=LEVEL / len(claims),
        base_seeds=int(np.median(counts)),
    )
    seeds = parse_seeds(request.sweep.seeds)
    label = f"{request.sweep.label}-reproduction"
    judged = {task for claim in claims for task in claim.tasks}
    tasks = {task: steps for task, steps in tasks.items() if task in judged}
    settings = settings_of_series(request)
    study = Study(label, tasks, seeds, design, OTHER_MARGIN, tuple(claims), settings=settings)
    return study, messages


def _check_settings(request: SweepRequest) -> None:
    """Check that the runs have the settings of the released curves.

    Raises:
        UserError: they have others.
    """
    other = next((run for run in request.planned if not has_paper_settings(run)), None)
    if other is not None or request.sweep.obs != "state":
        name = request.sweep.obs if other is None else f"{other.spec.method} {other.spec.variant}"
        raise UserError(
            f"against=published: {name}: the released curves are of the paper's settings with "
            "observations of the state; omit other settings and variants"
        )


def _by_domain(tasks: Iterable[str]) -> dict[str, list[str]]:
    domains: dict[str, list[str]] = {}
    for task in tasks:
        domains.setdefault(get_task(task).domain, []).append(task)
    return domains


def _released(request: SweepRequest) -> ScoreCurves:
    """Return the released curves of the methods and domains of a request.

    Raises:
        UserError: there are none.
    """
    specs, folder = [run.spec for run in request.planned], released_curves()
    domains = {get_task(spec.task).domain for spec in specs}
    tasks = [task.name for task in TASKS.values() if task.domain in domains]
    curves = read_released(folder, {spec.method for spec in specs}, tasks)
    if curves is None:
        raise UserError(
            f"against=published: no released curves in {folder}; `python "
            "analysis/fetch_published.py` downloads them, TDMPC2_PUBLISHED names another folder"
        )
    return curves


def _spread(curves: ScoreCurves, variances: TaskVariances, spec: RunSpec) -> PublishedSpread | None:
    """Return the spread of the released scores at the end of a run; None without one near it."""
    if released_spread(curves, spec) is None:
        return None
    return variances.published(released_rows(curves, spec), spec.budget)


class _Margin(NamedTuple):
    """A claim, None if the released seeds cannot settle it; and the smallest margin they settle."""

    claim: Claim | None
    smallest: float


def _claim(series: Series, domain: str, spreads: Mapping[str, PublishedSpread]) -> _Margin:
    """Return the claim that a method's mean over tasks of a domain is as published."""
    method, variant = series
    variances = np.array([one.variance for one in spreads.values()])
    counts = np.array([one.num_seeds for one in spreads.values()])
    smallest = float(smallest_margin(variances, counts))
    margin, settles = domain_margin(method, smallest, None)
    if not settles:
        return _Margin(None, smallest)
    text = "the mean over the tasks is that of the released curves"
    name = f"{method} {domain}"
    return _Margin(
        Claim(name, method, variant, method, PUBLISHED, "same", text, tuple(spreads), margin),
        smallest,
    )
