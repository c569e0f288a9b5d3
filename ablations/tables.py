"""Format the results of ablation studies: numeric table, text table, and terminal output."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from ablations.studies import StudyResult
from analysis.stats.ablation_claims import OPEN
from analysis.stats.ablation_effects import Effect
from analysis.stats.coverage import Coverage
from analysis.stats.equivalence import MOST_SEEDS, Difference
from analysis.stats.estimate_texts import coverage_note, estimate_text
from tdmpc2.common.system.texts import table_span

MISSING_SHOWN = 12
MEASURED = ("tasks", "seeds", "default", "variant", "difference", "area", "P(better) %")


def numbers_of(findings: Sequence[StudyResult]) -> pd.DataFrame:
    """Build the table of results with unrounded numbers, one row per ablation."""
    return pd.DataFrame([_numbers(finding) for finding in findings])


def _numbers(finding: StudyResult) -> dict[str, Any]:
    """Build a row of `numbers_of`."""
    one, effect = finding.study.ablation, finding.effect
    row: dict[str, Any] = {
        "factor": one.factor,
        "ablation": finding.study.name,
        "changes": one.changes,
        "variant": finding.study.variant[2],
        "base": finding.study.base[2],
        "model_size": finding.study.variant[3],
        "tasks": "",
    }
    if effect is not None:
        low, high = effect.final.interval(0.95)
        row |= {
            "tasks": " ".join(effect.tasks),
            "seeds_variant": table_span(effect.variant.sizes),
            "seeds_base": table_span(effect.base.sizes),
            "score_variant": effect.variant.score,
            "score_base": effect.base.score,
            **_bounds("difference", effect.final),
            "welch_low": low,
            "welch_high": high,
            **_bounds("area_difference", effect.area),
            **dict(zip(_IMPROVEMENT, effect.improvement.stacked()[0], strict=True)),
            **{f"{name}_coverage": share for name, share in effect.coverage.items()},
        }
    return {
        **row,
        "claim": one.claim,
        "expected": one.expected or "",
        "verdict": finding.verdict,
        "seeds_needed": finding.seeds_needed,
    }


_IMPROVEMENT = ("improvement", "improvement_low", "improvement_high")


def _bounds(name: str, found: Difference) -> dict[str, float]:
    """Return the three columns of a difference: value, lower and upper bound."""
    low, high = found.interval(0.95)
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}


def texts_of(findings: Sequence[StudyResult]) -> pd.DataFrame:
    """Build the table of results with rounded numbers as text, one row per ablation."""
    return pd.DataFrame([_texts(finding) for finding in findings])


def _texts(finding: StudyResult) -> dict[str, str]:
    """Build a row of `texts_of`."""
    row, one = _numbers(finding), finding.study.ablation
    measured = dict.fromkeys(MEASURED, "")
    if finding.effect is not None:
        measured = {
            "tasks": str(len(finding.effect.tasks)),
            "seeds": f"{row['seeds_variant']}/{row['seeds_base']}",
            "default": f"{row['score_base']:.1f}",
            "variant": f"{row['score_variant']:.1f}",
            "difference": _interval(row, "difference", "+.1f"),
            "area": _interval(row, "area_difference", "+.1f"),
            "P(better) %": _interval(row, "improvement", ".0f"),
        }
    head = {"factor": one.factor, "ablation": finding.study.name, "changes": one.changes}
    return {**head, **measured, "claim": one.claim or "-", "verdict": _verdict(finding)}


def _interval(row: dict[str, Any], name: str, form: str) -> str:
    """Format a value with its interval: `-3.1 [-5.0, -1.2]`."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return estimate_text(value, low, high, form=form)


def _verdict(finding: StudyResult) -> str:
    """Format the verdict; if it is open, with the number of seeds that would decide it."""
    if finding.effect is None:
        return "nothing to compare"
    if finding.verdict != OPEN:
        return finding.verdict
    single = any(len(side) < 2 for pair in finding.effect.pairs() for side in pair)
    if np.isnan(finding.effect.final.error) and not single:
        return f"{OPEN} (the scores of all seeds are equal)"
    needed = finding.seeds_needed or ("2 or more" if single else f"over {MOST_SEEDS}")
    return f"{OPEN} ({needed} needed)"


def text_of(findings: Sequence[StudyResult], margin: float) -> str:
    """Format the terminal output: table, claims, footnote, and what is missing.

    Args:
        findings: results of the studies.
        margin: margin of the verdicts in points.
    """
    table = texts_of(findings).drop(columns=["factor", "changes", "tasks", "claim"])
    rows, head = table.to_numpy().tolist(), list(table.columns)
    lines = tabulate(rows, head, "simple", disable_numparse=True)
    blocks = [lines, _claims(findings), _footnote(findings, margin)]
    messages = [f"{f.study.name}: {what}" for f in findings for what in f.missing]
    missing = list(dict.fromkeys(messages))
    if missing:
        rest = len(missing) - MISSING_SHOWN
        more = [f"… and {rest} more"] if rest > 0 else []
        blocks.append("\n".join(["Missing:", *missing[:MISSING_SHOWN], *more]))
    return "\n\n".join(blocks)


def _claims(findings: Sequence[StudyResult]) -> str:
    """Format one line per ablation: what it changes, and the claim on it."""
    lines = []
    for finding in findings:
        one = finding.study.ablation
        claim = one.claim or (f"expected to score {one.expected}" if one.expected else "")
        source = f" ({one.figure or 'not from the paper'})"
        lines.append(f"{one.variant} ({one.changes}): {claim + source if claim else 'no claim'}")
    return "\n".join(dict.fromkeys(lines))


def _footnote(findings: Sequence[StudyResult], margin: float) -> str:
    """Explain the numbers of the table."""
    steps = sorted({step for f in findings if f.effect for step in f.effect.steps})
    at = ", ".join(f"{step:,}" for step in steps)
    text = (
        f"Scores are in points (return / 10, or success in percent) at {at} env steps. seeds: "
        "variant/default. difference: score of the variant minus score of the default. area: "
        "difference of the areas under the learning curves. P(better): probability that a run of "
        "the variant scores higher than a run of the default. Brackets: 95 % intervals, which "
        "end at the range of possible values. Verdicts "
        f"use those of the difference and a margin of {margin:g} points. {_coverage(findings)}"
    )
    return textwrap.fill(text, 100)


def _coverage(findings: Sequence[StudyResult]) -> str:
    """Return the measured coverage of the intervals; that of areas is not measured."""
    named = {finding.study.variant: finding.study.name for finding in findings}
    found = [
        _measured(finding, finding.effect, name, share)
        for finding in findings
        if finding.effect is not None
        for name, share in finding.effect.coverage.items()
        if pd.notna(share)
    ]
    return f"{coverage_note(found, named)} The coverage for areas is not measured."


def _measured(finding: StudyResult, effect: Effect, name: str, share: float) -> Coverage:
    """Return the coverage of one interval of an ablation."""
    sizes = (*effect.variant.sizes, *effect.base.sizes)
    seeds = (min(sizes), max(sizes))
    group = f"against {finding.study.base[2]}"
    return Coverage(finding.study.variant, group, len(effect.tasks), seeds, name, share)
