"""Texts and files of a study: its design, its looks, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from analysis.records.studies import BOUNDARIES, RESULTS, RUNS, RecordedStudy
from analysis.stats.equivalence import Difference
from analysis.stats.study_results import BIAS_NOTE, describe_costs, interval_text, result_texts
from sweeps.studies.decisions import Look
from sweeps.studies.study import Study
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.texts import counted

MANY_TASKS = 10
"""A study of more tasks is described without their names."""


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
        else "seeds on each side"
    )
    kinds = {claim.expected is None for claim in study.claims}
    claimed, open_ = False in kinds, True in kinds
    positive = " or ".join(["'supported'"] * claimed + ["'lower'", "'higher'"] * open_)
    negative = " or ".join(["'contradicted'"] * claimed + ["'no difference'"] * open_)
    corrected = design.family_level < claims * design.claim_level
    whole = f", {100 * design.family_level:.3g} % in the whole study" if corrected else ""
    return (
        f"Study of {counted(claims, 'claim')} with looks at {looks} {sides}; "
        f"env steps: {tasks}.\n"
        f"A score is the mean of the last {study.evaluations} evaluations (step 0 never counts).\n"
        f"Chance of a false {positive}: {100 * design.claim_level:.3g} % per claim{whole}; of a "
        f"false {negative}: {100 * design.against_level:.3g} % per claim. "
        f"Margin: {' to '.join(f'{m:g}' for m in dict.fromkeys((margins[0], margins[-1])))} points."
    )


def of_look(look: Look) -> str:
    """Return the table of a look whose runs have all ended."""
    rows = []
    for one in look:
        assert one.gap is not None
        measured = [f"{one.gap.value:+.1f}", interval_text(*one.gap.interval(0.95))]
        rows.append([one.claim.name, one.claim.expected or "-", *measured, one.decision])
    head = ["claim", "expected", "difference", "95 % interval", "decision"]
    return f"\nLook at {look[0].seeds} seeds\n" + tabulate(rows, head, disable_numparse=True)


def summary(study: RecordedStudy) -> str:
    """Return the results of a study in which every claim is decided."""
    table = tabulate(result_texts(study), headers="keys", showindex=False, disable_numparse=True)
    return f"\n{table}\n\n{BIAS_NOTE}\n{describe_costs(study)}"


def write(folder: Path, looks: Sequence[Look], runs: pd.DataFrame) -> None:
    """Write the results of all looks, the boundaries of their decisions, and the runs.

    Args:
        folder: folder of the study.
        looks: its looks.
        runs: result of `registration.run_table`.
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
    write_text(folder / RUNS, runs.to_csv(index=False))
