"""Tables of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.figure_specs import LineStyle
from analysis.records.load import SERIES
from analysis.stats.selection import Series


def table_data(table: pd.DataFrame) -> dict[str, Any]:
    """Return columns and rows for JSON."""
    return {
        "columns": [str(name) for name in table.columns],
        "rows": [[_cell(value) for value in row] for row in table.to_numpy(object).tolist()],
    }


def _cell(value: Any) -> Any:
    """Return a value for JSON."""
    if isinstance(value, int | np.integer):
        return int(value)
    return str(value) if pd.notna(value) else ""


def audit_texts(
    findings: pd.DataFrame, names: Mapping[str, str], styles: Mapping[Series, LineStyle]
) -> pd.DataFrame:
    """Return the audit with its series in one column, named as in the charts.

    Args:
        findings: the audit.
        names: labels of methods, for series that have no chart.
        styles: styles of the series in charts.
    """
    if findings.empty:
        return findings.drop(columns=SERIES)
    series = []
    for key in findings[SERIES].astype(str).itertuples(index=False, name=None):
        source, method, *rest = key
        named = " ".join(filter(None, [source, names.get(method, method), *rest]))
        series.append(styles[key].label if key in styles else named)
    table = findings.drop(columns=SERIES)
    return table.assign(series=series)[["series", *table.columns]]
