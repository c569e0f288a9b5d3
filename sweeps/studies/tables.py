"""Texts and files of a study: its design, its looks, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from analysis.stats.equivalence import Difference
from sweeps.studies.decisions import WAITING, Look, LookResult
from sweeps.studies.registration import Started
from sweeps.studies.registration import describe as describe_registration
from sweeps.studies.study import PUBLISHED, REGISTERED, Study, changes, digest
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.errors import UserError

MANY_TASKS = 10
"""A study of more tasks is described without their names."""
RESULTS, BOUNDARIES = "decisions.csv", "boundaries.csv"
"""Results of all looks in the folder of a study, and the differences that decide."""


def describe(study: Study) -> str:
    """Return the design of a study in a few lines."""
    design, claims = study.design, len(study.claims)
    looks = ", ".join(map(str, study.looks))
    tasks = ", ".join(f"{task} at {step:,}" for task, step in study.tasks.items())
    if len(study.tasks) > MANY_TASKS:
        tasks = f"{min(study.tasks.values()):,} to {max(study.tasks.values()):,}"
    margins = sorted({study.margin_of(claim) for claim in study.claims})
    sides = (
        f"seeds against {design.base_seeds} published ones"
        if design.base_seeds
        else ("seeds on each side")
    )
    corrected = design.family_level < claims * design.claim_level
    whole = f", {100 * design.family_level:.3g} % in the whole study" if corrected else ""
    return (
        f"Study of {claims} claim{'s' * (claims > 1)} with looks at {looks} {sides}; "
        f"env steps: {tasks}.\n"
        f"A score is the mean of the last {study.evaluations} evaluations (step 0 never counts).\n"
        f"Chance of a false 'supported': {100 * design.claim_level:.3g} % per claim{whole}; of a "
        f"false 'contradicted': {100 * design.against_level:.3g} % per claim. "
        f"Margin: {' to '.join(f'{m:g}' for m in dict.fromkeys((margins[0], margins[-1])))} points."
    )


def of_look(look: Look) -> str:
    """Return the table of a look whose runs have all ended."""
    rows = []
    for one in look:
        assert one.gap is not None
        measured = [f"{one.gap.value:+.1f}", _interval(one.gap)]
        rows.append([one.claim.name, one.claim.expected or "-", *measured, one.decision])
    head = ["claim", "expected", "difference", "95 % interval", "decision"]
    return f"\nLook at {look[0].seeds} seeds\n" + tabulate(rows, head, disable_numparse=True)


def _interval(gap: Difference) -> str:
    low, high = gap.interval(0.95)
    return f"[{low:+.1f}, {high:+.1f}]"


def results_of(study: Study, looks: Sequence[Look]) -> list[tuple[LookResult, LookResult]]:
    """Return the last result of each claim, and that of the first look."""
    last = {one.claim.name: one for look in looks for one in look if one.decision != WAITING}
    first = {one.claim.name: one for one in looks[0] if one.decision != WAITING}
    return [(last[c.name], first[c.name]) for c in study.claims if c.name in last]


def summary(study: Study, looks: Sequence[Look], started: Started) -> str:
    """Return the results of a study in which every claim is decided.

    A study that stops at a large difference has seen a large one more often than not, so the
    estimate at the end is biased away from zero; that of the first look is not, because it always
    takes place.

    Args:
        study: the study.
        looks: its looks.
        started: runs that it has not started.
    """
    rows = []
    for one, first in results_of(study, looks):
        assert one.gap is not None
        assert first.gap is not None
        early = "" if one.seeds == study.looks[-1] else "*"
        rows.append(
            [
                one.claim.name,
                one.decision,
                one.seeds,
                f"{one.gap.value:+.1f}{early} {_interval(one.gap)}",
                f"{first.gap.value:+.1f} {_interval(first.gap)}",
                describe_registration(study, one, started),
            ]
        )
    head = [
        "claim",
        "decision",
        "seeds",
        "difference at the decision",
        "unbiased: first look",
        "registered",
    ]
    runs, fixed = count_runs(study, looks)
    return "\n".join(
        [
            "",
            tabulate(rows, head, disable_numparse=True),
            "",
            "Differences in points, variant minus base, with 95 % intervals of a single look. "
            "* stopped early: biased away from zero;\nthe estimate of the first look is unbiased.",
            f"Runs: {runs} of {fixed} with {study.looks[-1]} seeds for every claim "
            f"({100 * (1 - runs / fixed):.0f} % saved).",
        ]
    )


def describe_studies(runs: Path) -> list[str]:
    """Describe each study of a folder of runs in one line: its decisions, and what was changed.

    Args:
        runs: folder of all runs.
    """
    lines = []
    for file in sorted((runs / "studies").glob(f"*/{REGISTERED}")):
        folder = file.parent
        try:
            Study.read(file)
            results = pd.read_csv(folder / RESULTS)
            last = results.groupby("claim", sort=False).last()
        except (UserError, OSError, ValueError, KeyError) as error:
            lines.append(f"Study {folder.name}: cannot be read ({error})")
            continue
        changed = changes(folder)
        decisions = (
            f"{claim}: {row.decision} at {row.seeds} seeds"
            for claim, row in zip(last.index, last.itertuples(), strict=True)
        )
        lines.append(
            f"Study {folder.name}, registered ({digest(file)}): {'; '.join(decisions)}"
            + (f". Its file was changed later: {', '.join(changed)}" if changed else "")
        )
    return lines


def count_runs(study: Study, looks: Sequence[Look]) -> tuple[int, int]:
    """Return the runs of a study, and those of a design with all seeds for every claim."""
    seeds: dict[tuple[tuple[str, str], str], int] = {}
    for one in (result for look in looks for result in look):
        for series in one.claim.series:
            if series[1] != PUBLISHED:
                for task in study.tasks_of(one.claim):
                    seeds[series, task] = max(seeds.get((series, task), 0), one.seeds)
    return sum(seeds.values()), len(seeds) * study.looks[-1]


def write(folder: Path, study: Study, looks: Sequence[Look]) -> None:
    """Write the results of all looks, and the boundaries of their decisions.

    Args:
        folder: folder of the study.
        study: the study.
        looks: its looks.
    """
    rows, bounds = [], []
    for look in looks:
        for one in look:
            for region in one.regions:
                low, high = float(region.low), float(region.high)
                bounds.append((one.seeds, one.claim.name, region.decision, low, high))
            gap = one.gap or Difference(float("nan"), float("nan"), float("nan"))
            low, high = gap.interval(0.95)
            rows.append(
                {
                    "seeds": one.seeds,
                    "claim": one.claim.name,
                    "expected": one.claim.expected or "",
                    "difference": gap.value,
                    "standard_error": gap.error,
                    "freedom": gap.freedom,
                    "low": low,
                    "high": high,
                    "decision": one.decision,
                    "missing_runs": one.missing,
                }
            )
    write_text(folder / RESULTS, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(bounds, columns=["seeds", "claim", "decision", "low", "high"])
    write_text(folder / BOUNDARIES, table.to_csv(index=False))
