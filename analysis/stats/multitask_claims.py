"""Comparison of multi-task agents with the scores that the paper states for them.

The paper states one number for each model size, without a spread. It counts as exact, and each of
our agents is one sample, because the tasks of one agent are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.load import AGENTS
from analysis.records.precisions import in_any_precision
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.equivalence import difference_from, if_spread
from analysis.stats.equivalence_tables import comparison_columns, text_table
from analysis.stats.gate import JUDGED, judge, outcome
from analysis.stats.horizons import last_before
from analysis.stats.intervals import ROUNDING
from analysis.stats.margins import NOT_JUDGED, PAPER_UPDATES
from analysis.stats.multitask_scores import Agents, agents_of
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import Rule, is_near
from tdmpc2.common.system.texts import size_text

MULTITASK_CLAIMS = [*AGENTS, "num_updates", "num_ours", "ours", "theirs", *JUDGED, "remark"]


def compare_agents(
    curves: ScoreCurves,
    published: Mapping[tuple[str, str], float],
    rule: Rule,
    variant: str,
    margin: float,
) -> pd.DataFrame:
    """Compare the score of every agent on its task set with the published one.

    Args:
        curves: multi-task runs.
        published: score in percent of TD-MPC2 by task set and model size.
        rule: treatment of missing and repeated evaluations.
        variant: variant of our runs.
        margin: equivalence margin, in points.

    Returns:
        Columns `MULTITASK_CLAIMS`: a row for each of our series, and one for each published score
        without a run. The verdict is `NOT_JUDGED` without a run, a published score, or an
        evaluation after `PAPER_UPDATES`.
    """
    rows: list[dict[str, Any]] = []
    unmatched = dict(published)
    for agents in agents_of(curves, []):
        row = dict(zip(AGENTS, agents.key, strict=False))
        if row["variant"].split("[")[0] != variant:
            continue
        number = None
        if (row["method"], in_any_precision(row["variant"])) == ("tdmpc2", "default"):
            number = published.get((row["task_set"], row["model_size"]))
            unmatched.pop((row["task_set"], row["model_size"]), None)
        rows.append({**row, **_compare(agents, number, rule, margin)})
    for (task_set, size), number in unmatched.items():
        key = (RUNS_SOURCE, "tdmpc2", "default", size, "", task_set)
        row = dict(zip(AGENTS, key, strict=True))
        rows.append({**row, "num_ours": 0, "theirs": number, **_not_judged(margin, "no run")})
    table = pd.DataFrame(rows, columns=MULTITASK_CLAIMS).assign(complete=True, decides=True)
    return judge([table.astype({"num_updates": "Int64"})])[0]


def _compare(agents: Agents, number: float | None, rule: Rule, margin: float) -> dict[str, Any]:
    """Return the comparison of one series with a published score, None if there is none."""
    last = last_before(agents.grid, np.array([PAPER_UPDATES]))[0]
    complete = agents.reached.min() >= PAPER_UPDATES and is_near(last, PAPER_UPDATES)
    step = PAPER_UPDATES if complete else agents.end
    scores = 100 * agents.values(np.array([step]), rule).mean(axis=0)[:, 0]
    row = {"num_updates": step, "num_ours": len(scores), "ours": scores.mean()}
    if number is None:
        return row | _not_judged(margin, "no published score")
    row["theirs"] = number
    if not complete:
        what = f"at update {step:,}, the paper's score is at {PAPER_UPDATES:,}"
        return row | _not_judged(margin, what)
    if np.isnan(scores).any():
        return row | _not_judged(margin, f"a task has no score at update {step:,}")
    gap = difference_from(scores, number)
    row |= outcome(if_spread(gap), margin)
    if len(scores) == 1:
        return row | {"remark": "a single seed has no interval"}
    return row | {"remark": "" if gap.error > ROUNDING else "all seeds have the same score"}


def _not_judged(margin: float, why: str) -> dict[str, Any]:
    """Return the outcome of a claim that is not judged."""
    return {"verdict": NOT_JUDGED, "margin": margin, "remark": why}


def agent_texts(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `compare_agents` as rounded text."""
    names = ("method", "variant", "dataset")
    return pd.DataFrame(
        {
            **{name: claims[name] for name in names if (claims[name] != "").any()},
            "tasks": claims["task_set"],
            "size": [size_text(size) for size in claims["model_size"]],
            "updates": [f"{step:,}" if pd.notna(step) else "" for step in claims["num_updates"]],
            "seeds": claims["num_ours"],
            **comparison_columns(claims),
            "remark": claims["remark"],
        }
    )


def claims_text(claims: pd.DataFrame) -> str:
    """Return the table as text, with a note on the published scores."""
    return (
        f"{text_table(agent_texts(claims))}\n\n"
        "Multi-task agents: points are the mean over tasks of return / 10 or success in percent, "
        "with t-intervals over seeds. The paper's scores (Table 1) have no spread and count as "
        f"exact. '{NOT_JUDGED}' is not judged: see the remark."
    )
