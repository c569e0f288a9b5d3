"""Power of the comparisons that a launch plans, one line per comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.records.progress import doing
from analysis.records.source_options import released_curves
from analysis.stats.ablation_claims import Expected
from analysis.stats.equivalence import MOST_SEEDS
from analysis.stats.margins import OTHER_MARGIN, POWER
from analysis.stats.power import (
    Sides,
    points_text,
    seeds_needed,
    smallest_effect,
    spread_factors,
)
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from sweeps.studies.spread_sources import RELEASED, Sourced, SpreadSources, has_paper_settings

ENOUGH_TASKS = 0.9
"""Share of the tasks whose spread must be known; otherwise the power counts as unknown."""
_RANGES = "(ranges: 95 %, because spreads of few seeds are uncertain):"
TITLE = f"Power {_RANGES}"
STUDY_TITLE = f"Power of one test with all seeds; looks and several claims reduce it {_RANGES}"
Series = tuple[str, str]
"""Method and variant."""


@dataclass(frozen=True)
class Pair:
    """Planned comparison of two series on the tasks that both have.

    Attributes:
        label: name of the comparison.
        first: one run per compared task, of the series that the claim is about.
        second: one run per task of the series that it is compared with.
        num_seeds: seeds of each task on each side.
        claim: claimed score of the first series relative to the second; None without a claim.
    """

    label: str
    first: Mapping[str, PlannedRun]
    second: Mapping[str, PlannedRun]
    num_seeds: int
    claim: Expected | None


def print_power(
    request: SweepRequest,
    claims: Mapping[str, Expected | None] | None = None,
    margin: float = OTHER_MARGIN,
    title: str = TITLE,
) -> None:
    """Print the power of the comparisons of a launch; nothing if it has a single series.

    Args:
        request: the launch.
        claims: claims by the variant that they are about; other variants have none.
        margin: loss, difference or margin in points for which the needed seeds are printed.
        title: line before them.
    """
    with doing("computing the power of the comparisons"):
        lines = power_lines(request, claims or {}, margin, released_curves(), title)
    print("\n".join(lines), end="\n" * bool(lines), flush=True)


def power_lines(
    request: SweepRequest,
    claims: Mapping[str, Expected | None],
    margin: float,
    released: Path,
    title: str = TITLE,
) -> list[str]:
    """Return the lines that `print_power` prints.

    Args:
        request: the launch.
        claims: claims by the variant that they are about; other variants have none.
        margin: loss, difference or margin in points for which the needed seeds are stated.
        released: folder of the released curves; it need not exist.
        title: line before them.
    """
    if request.sweep.multitask:
        if len({_series(run) for run in request.planned}) < 2:
            return []
        return ["Power: unknown, as no spread over seeds of multi-task agents is published"]
    # Companion runs of a suite, which need not learn, are compared with nothing.
    planned = [run for run in request.planned if run.must_learn is not None]
    if len({_series(run) for run in planned}) < 2:
        return []
    compared = pairs(planned, claims)
    if compared[0].num_seeds < 2:
        return ["Power: none, as a single seed has no interval; set seeds to 2 or more"]
    sources = SpreadSources(planned, request.runs, released)
    labels: dict[str, list[str]] = {}
    for pair in compared:
        labels.setdefault(describe(pair, sources, margin), []).append(pair.label)
    return [title, *(f"  {', '.join(names)}: {text}" for text, names in labels.items())]


def pairs(planned: Sequence[PlannedRun], claims: Mapping[str, Expected | None]) -> list[Pair]:
    """Return the comparisons of a plan.

    Each further variant of a method is compared with its first variant, and the first variant of
    each further method with that of the first method.

    Args:
        planned: single-task runs.
        claims: claims by the variant that they are about.
    """
    series: dict[Series, dict[str, PlannedRun]] = {}
    for run in planned:
        series.setdefault(_series(run), {}).setdefault(run.spec.task, run)
    num_seeds = len({run.spec.seed for run in planned})
    bases: dict[str, dict[str, PlannedRun]] = {}
    several = len({method for method, _ in series}) > 1
    found = []
    for (method, variant), runs in series.items():
        if method in bases:
            label, base = f"{method} {variant}" if several else variant, bases[method]
            claim = claims.get(variant)
        elif bases:
            first, base = next(iter(bases.items()))
            label, claim = f"{method} against {first}", None
        else:
            bases[method] = runs
            continue
        bases.setdefault(method, runs)
        shared = {task: run for task, run in runs.items() if task in base}
        found.append(Pair(label, shared, base, num_seeds, claim))
    return found


def describe(pair: Pair, sources: SpreadSources, margin: float) -> str:
    """Describe the power of one comparison.

    Args:
        pair: the comparison.
        sources: where spreads come from.
        margin: effect in points for which the needed seeds are stated.
    """
    known: list[tuple[Sourced, Sourced]] = []
    unknown: list[PlannedRun] = []
    for task, run in pair.first.items():
        other = pair.second[task]
        base, own = sources.of(other), sources.of(run)
        if own is None and run.spec.method == other.spec.method:
            own = base  # a variant without runs is assumed to have the spread of its base
        if own is None or base is None:
            unknown.append(other if base is None else run)
        else:
            known.append((own, base))
    if len(known) < ENOUGH_TASKS * len(pair.first):
        return f"power unknown: {_why(unknown[0], sources)}"
    variances = np.array([[one.spread.variance for one in sides] for sides in known]).T
    sides = Sides.of(variances[0], variances[1], pair.num_seeds)
    estimates = [one for own, base in known for one in ([base] if own is base else [own, base])]
    terms = [
        (2 if own is base else 1) * one.spread.variance
        for own, base in known
        for one in ([base] if own is base else [own, base])
    ]
    freedom = np.array([one.spread.freedom for one in estimates])
    found = effect_text(sides, pair.claim, margin, spread_factors(np.array(terms), freedom))
    where = f"spread {np.sqrt(variances.mean()):.1f} from {_origin(estimates)}"
    where += f", on {len(known)} of {len(pair.first)} tasks" if unknown else ""
    return f"{found}; {where}"


def effect_text(
    sides: Sides, claim: Expected | None, margin: float, factors: tuple[float, float]
) -> str:
    """Describe the smallest effect that is found, and the seeds that find the margin.

    Args:
        sides: planned comparison with equal numbers of seeds.
        claim: claimed score of the first side; None without a claim.
        margin: effect in points for which the needed seeds are stated.
        factors: result of `spread_factors`.
    """
    effect = smallest_effect(sides, claim)
    low, high = (factor * effect for factor in factors)
    verb = {
        "lower": "find a loss of",
        "same": "show equal agents to be equal within",
        None: "find a difference of",
    }[claim]
    needed = [seeds_needed(sides.scaled(f), margin, claim) for f in (1.0, *factors)]
    counts = [str(count or f"over {MOST_SEEDS}") for count in needed]
    span = "" if counts[1] == counts[2] else f" ({counts[1]} to {counts[2]})"
    return (
        f"{sides.counts[0, 0]} seeds {verb} {points_text(effect)} points ({points_text(low)} to "
        f"{points_text(high)}) with {POWER:.0%} probability; {margin:g} points need {counts[0]} "
        f"seeds{span}"
    ).replace("%", " %")


def _series(run: PlannedRun) -> Series:
    return run.spec.method, run.spec.variant


def _origin(estimates: Sequence[Sourced]) -> str:
    """Return the sources and the env steps of some spreads."""
    sources = " and ".join(sorted({one.source for one in estimates}))
    steps = [one.spread.env_step for one in estimates]
    low, high = _steps(min(steps)), _steps(max(steps))
    return f"{sources} at {low if low == high else f'{low} to {high}'} env steps"


def _steps(env_step: int) -> str:
    """Return an env step in thousands or millions, with two digits: `150k`, `14M`."""
    value, unit = (env_step / 1e6, "M") if env_step >= 950_000 else (env_step / 1e3, "k")
    return f"{value:.2g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def _why(run: PlannedRun, sources: SpreadSources) -> str:
    """Explain why the spread of a run is unknown."""
    own = f"no 2 finished runs of {run.spec.method} {run.spec.variant} on {run.spec.task}"
    if not has_paper_settings(run):
        return f"{own}, and {RELEASED} are of other settings"
    if not sources.has_released:
        return (
            f"{own}, and no released curves (`python analysis/fetch_published.py` downloads them)"
        )
    return f"{own} at {_steps(run.spec.budget)} env steps, and no released curves there"
