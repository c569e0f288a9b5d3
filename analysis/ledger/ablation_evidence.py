"""Status of claims on ablations, as in `ablations/report.py`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.ledger.claims_file import AblationClaim
from analysis.ledger.findings import (
    CONTRADICTED,
    OPEN,
    SUPPORTED,
    SUPPORTED_SO_FAR,
    points_text,
)
from analysis.ledger.inputs import DEFAULT, RULE, Inputs
from analysis.records.evaluations import ENV_STEPS
from analysis.stats.ablation_claims import judge
from analysis.stats.ablation_effects import Effect, effect_of
from analysis.stats.ragged_curves import ScoreCurves, paper_budget
from analysis.stats.rules import is_near
from tdmpc2.common.system.texts import counted, size_text, span_text


def ablation(claim: AblationClaim, inputs: Inputs) -> tuple[str, list[str]]:
    """Return the status of a claim on an ablation, and what was run.

    Runs of another base than the default, such as those of `--quick`, are listed and decide
    nothing. Claims on multi-task agents are not judged.

    Args:
        claim: the claim.
        inputs: records.
    """
    if claim.multitask:
        return OPEN, ["shown in a figure only"]
    name = claim.flag.replace(" ", "-")
    records = inputs.runs.select(methods=["tdmpc2"], obs="state", step_unit=ENV_STEPS)
    curves = ScoreCurves(records)
    status, evidence = OPEN, []
    for base, size in _bases(curves.runs, name):
        effect = _effect(curves, name, base, size, inputs)
        if effect is None:
            continue
        verdict = judge(effect.final, claim.expected)
        seeds = (*effect.base.sizes, *effect.variant.sizes)
        points = points_text(effect.final, effect.coverage["difference"])
        evidence.append(
            f"own runs ({base}, model size {size_text(size)}): "
            f"{counted(len(effect.tasks), 'task')}, "
            f"{span_text(min(effect.steps), max(effect.steps))} env steps, "
            f"{span_text(min(seeds), max(seeds))} seed{'s' * (max(seeds) > 1)}: "
            f"{points}, {verdict}"
        )
        if (base, size) != (DEFAULT, "5"):
            continue
        # Agents that have not learned yet differ little, so short runs contradict nothing.
        whole = _whole(effect, inputs.catalog.groups["ablation"].tasks)
        if verdict == "contradicted" and whole:
            status = CONTRADICTED
        elif verdict == "supported":
            status = SUPPORTED if whole else SUPPORTED_SO_FAR
    return status, evidence


def _bases(runs: pd.DataFrame, name: str) -> list[tuple[str, str]]:
    """Return the bases of the runs of an ablation, with their model size."""
    found = set()
    for variant, size in runs[["variant", "model_size"]].drop_duplicates().to_numpy():
        prefix, plus, last = variant.rpartition("+")
        if last == name:
            found.add((prefix if plus else DEFAULT, size))
    return sorted(found)


def _effect(curves: ScoreCurves, name: str, base: str, size: str, inputs: Inputs) -> Effect | None:
    """Return the effect of an ablation on its base; None if they have no task in common."""
    variant = name if base == DEFAULT else f"{base}+{name}"
    same = curves.runs["model_size"] == size
    sides = [np.flatnonzero(same & (curves.runs["variant"] == one)) for one in (base, variant)]
    if not all(map(len, sides)):
        return None
    return effect_of(curves, sides[0], sides[1], RULE, inputs.catalog.bootstrap)[0]


def _whole(effect: Effect, tasks: tuple[str, ...]) -> bool:
    """Return whether all tasks were compared at the paper's budget."""
    near = [
        bool(is_near(step, paper_budget(task, "state")))
        for task, step in zip(effect.tasks, effect.steps, strict=True)
    ]
    return set(effect.tasks) >= set(tasks) and all(near)
