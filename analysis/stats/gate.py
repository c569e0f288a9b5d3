"""Verdicts of a family of tests: corrected for their number, and what decides the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.equivalence import LEVEL, Difference
from analysis.stats.margins import NOT_JUDGED, OPEN, SO_FAR, UNSETTLED
from analysis.stats.multiplicity import directed, holm, level_shares

OUTCOME = ["difference", "low", "high", "margin", "verdict"]
JUDGED = [*OUTCOME, "error", "freedom", "p_value", "adjusted_p", "need", "complete", "decides"]
"""Columns of a table whose rows are tests of one family."""


def outcome(gap: Difference | None, margin: float) -> dict[str, Any]:
    """Return difference, interval, standard error and p-value; without a difference, open.

    Args:
        gap: difference of the means.
        margin: equivalence margin, in points.
    """
    if gap is None:
        return {"verdict": OPEN, "margin": margin}
    low, high = gap.interval(0.95)
    numbers = {"difference": gap.value, "low": low, "high": high, "margin": margin}
    errors = {"error": gap.error, "freedom": gap.freedom, "p_value": gap.p_value}
    return {**numbers, **errors, "verdict": OPEN}


def judge(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables with `adjusted_p` and `verdict`, by one family of tests over all of them.

    Differences of zero are tested with Holm's correction, whose level goes first to tests that can
    find a loss (`margins.level_for_loss`), and more of it to losses than to gains
    (`multiplicity.directed`). Equivalence needs no correction, because exit code 0
    requires all of the tests.

    Args:
        tables: tables with the columns `JUDGED`; rows whose verdict is `NOT_JUDGED` stay.
    """
    rows = [row for table in tables for row in table[JUDGED].to_dict("records")]
    judged = np.array([row["verdict"] != NOT_JUDGED for row in rows], bool)
    adjusted = np.full(len(rows), np.nan)
    if judged.any():
        columns = ("p_value", "difference", "need")
        table = np.array([[row[name] for name in columns] for row in rows], float)[judged]
        two_sided, values, needs = table.T
        needs = np.where(np.isnan(needs), LEVEL, needs)
        needs[~np.array([row["decides"] for row in rows], bool)[judged]] = np.inf
        adjusted[judged] = holm(directed(two_sided, values), level_shares(needs, LEVEL))
    verdicts = [
        verdict_of(row, p_value) if named else row["verdict"]
        for row, p_value, named in zip(rows, adjusted, judged, strict=True)
    ]
    out, start = [], 0
    for table in tables:
        own = slice(start, start + len(table))
        out.append(table.assign(adjusted_p=adjusted[own], verdict=verdicts[own]))
        start += len(table)
    return out


def verdict_of(row: Any, adjusted_p: float) -> str:
    """Return the verdict on a row with the columns `JUDGED`.

    Args:
        row: mapping from column to value.
        adjusted_p: p-value of a difference of zero, corrected for the family; NaN without one.
    """
    gap = Difference(row["difference"], row["error"], row["freedom"])
    found = gap.verdict(row["margin"], adjusted_p)
    if not row["decides"] and found in (OPEN, "reproduced"):
        return UNSETTLED
    return SO_FAR if found == "reproduced" and not row["complete"] else found


def exit_code(tables: Sequence[pd.DataFrame]) -> int:
    """Return 1 if a deciding row is worse, 0 if all are reproduced or better, else 3.

    Args:
        tables: results of `judge`.
    """
    deciding = [table.loc[table["decides"].astype(bool), "verdict"] for table in tables]
    verdicts = {verdict for column in deciding for verdict in column} - {NOT_JUDGED}
    if "worse" in verdicts:
        return 1
    return 3 if verdicts & {OPEN, SO_FAR} or not verdicts else 0
