"""Tables of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


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
