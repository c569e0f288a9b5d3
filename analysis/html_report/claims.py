"""Page of the report with the status of every claim of the paper."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.figure_specs import Catalog
from analysis.html_report.tables import table_data
from analysis.ledger.claims_file import ledger_path, read_ledger
from analysis.ledger.evidence import findings_of
from analysis.ledger.findings import MEANINGS, counts
from analysis.ledger.inputs import Inputs
from analysis.records.load import Records
from analysis.records.sources import PUBLISHED, RUNS_SOURCE


def claims_page(records: Records, catalog: Catalog) -> dict[str, Any]:
    """Return the table of claims, and the number of claims with each status.

    Args:
        records: records from all sources, of which own runs and released curves are used.
        catalog: groups of tasks, labels and quoted numbers.
    """
    released = records.select(sources=[PUBLISHED])
    inputs = Inputs(
        records.select(sources=[RUNS_SOURCE]), released if len(released.runs) else None, catalog
    )
    findings = findings_of(read_ledger(ledger_path()), inputs)
    rows = [
        (one.statement, ", ".join(one.places), one.status, "; ".join(one.evidence), one.command)
        for one in findings
    ]
    columns = ["claim", "place in the paper", "status", "evidence", "command"]
    return {
        **table_data(pd.DataFrame(rows, columns=columns)),
        "counts": [[status, n, MEANINGS[status]] for status, n in counts(findings).items()],
    }
