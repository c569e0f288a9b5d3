"""Page of the report with the studies that stop when decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.figures.study_plots import shown_range
from analysis.html_report.headlines import rounded
from analysis.html_report.tables import table_data
from analysis.records.studies import RecordedClaim, RecordedStudy
from analysis.stats.group_sequential import FUTILE, UNDECIDED
from analysis.stats.study_results import (
    BIAS_NOTE,
    describe_costs,
    interval,
    is_decided,
    result_texts,
)


def studies_page(studies: Sequence[RecordedStudy]) -> dict[str, Any] | None:
    """Return what the page shows of each study; None if there is none."""
    if not studies:
        return None
    return {"studies": [_study(study) for study in studies], "note": BIAS_NOTE}


def _study(study: RecordedStudy) -> dict[str, Any]:
    """Return design, registration, results, looks and paths of a study."""
    return {
        "name": study.name,
        "mark": study.mark,
        "design": _design(study),
        "tasks": [f"{task}: {step:,} env steps" for task, step in study.tasks.items()],
        "tests": [f"{name} = {value}" for name, value in study.tests.items()],
        "changed": list(study.changed),
        "costs": describe_costs(study),
        "claims": table_data(_claims(study)),
        "results": table_data(result_texts(study)),
        "looks": table_data(_looks(study)),
        "paths": [path for claim in study.claims if (path := _path(study, claim)) is not None],
    }


def _design(study: RecordedStudy) -> str:
    """Return looks, scores and state of a study as a sentence."""
    published = study.tests.get("base_seeds")
    sides = f"against {published} published ones" if published else "on each side"
    last = study.evaluations
    score = f" A score is the mean of the last {last} evaluations." if last else ""
    return f"Looks at {', '.join(map(str, study.looks))} seeds {sides}.{score} {_state(study)}"


def _state(study: RecordedStudy) -> str:
    """Return whether a study has ended, and how many of its claims are undecided then."""
    if not is_decided(study):
        return "In progress."
    last = study.decisions.groupby("claim").last()["decision"]
    undecided = int(last.isin((FUTILE, UNDECIDED)).sum())
    if not undecided:
        return "Every claim is decided."
    return f"Finished; undecided: {undecided} of {len(last)} claims."


def _claims(study: RecordedStudy) -> pd.DataFrame:
    """Return the claims with the series and tasks that each compares."""
    rows = [
        (
            *(claim.name, claim.expected or "–", claim.text),
            *(" ".join(one) for one in claim.series),
            "all tasks" if len(claim.tasks) == len(study.tasks) else ", ".join(claim.tasks),
            f"{claim.margin:g}",
        )
        for claim in study.claims
    ]
    return pd.DataFrame(rows, columns=_CLAIMS)


_CLAIMS = ["claim", "expected", "in words", "runs", "compared with", "tasks", "margin"]


def _looks(study: RecordedStudy) -> pd.DataFrame:
    """Return the results of all looks; a look that waits for runs has no difference."""
    rows = []
    for _, row in study.decisions.iterrows():
        waits = pd.isna(row["difference"])
        measured = ("", "") if waits else (f"{row['difference']:+.1f}", interval(row))
        decision = f"{row['decision']} ({row['missing_runs']})" if waits else row["decision"]
        rows.append((int(row["seeds"]), row["claim"], *measured, decision))
    columns = ["seeds", "claim", "difference", "95 % interval", "decision"]
    return pd.DataFrame(rows, columns=columns)


def _path(study: RecordedStudy, claim: RecordedClaim) -> dict[str, Any] | None:
    """Return the path of a claim, cut off at the range that its figure shows.

    Returns:
        An object for JSON: `points` are looks with estimate and interval, `regions` differences
        that decide; None before the first complete look.
    """
    own = study.complete[study.complete["claim"] == claim.name]
    if own.empty:
        return None
    bound = shown_range(own)
    regions = study.boundaries[study.boundaries["claim"] == claim.name]
    regions = regions.assign(
        low=regions["low"].clip(-bound), high=regions["high"].clip(upper=bound)
    )
    regions = regions[regions["low"] < regions["high"]]
    points = zip(own["seeds"], *(rounded(own[name]) for name in _MEASURED), strict=True)
    areas = zip(
        *(regions["seeds"], regions["decision"], rounded(regions["low"]), rounded(regions["high"])),
        strict=True,
    )
    return {
        "claim": claim.name,
        "decision": str(own["decision"].iloc[-1]),
        "looks": list(study.looks),
        "bound": rounded([bound])[0],
        "points": [[int(seeds), *values] for seeds, *values in points],
        "regions": [[int(seeds), *rest] for seeds, *rest in areas],
    }


_MEASURED = ("difference", "low", "high")
