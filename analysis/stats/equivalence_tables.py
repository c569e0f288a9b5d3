"""Text tables of the comparison with the published curves."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from analysis.records.load import SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.equivalence import LEVEL, MOST_SEEDS, WORST_FIRST
from analysis.stats.estimate_texts import estimate_text, share_text
from analysis.stats.margins import OPEN
from analysis.stats.seed_forecast import Forecast
from analysis.stats.task_titles import task_titles
from tdmpc2.common.system.texts import size_text


def shown(tasks: pd.DataFrame, domains: pd.DataFrame, left_out: Sequence[str]) -> str:
    """Return both tables as text, worst verdicts first, with notes and what is left out.

    Args:
        tasks: the table of `Comparison.tasks`.
        domains: result of `compare_domains`.
        left_out: reasons why runs are not compared, one a line.
    """
    order = tasks.assign(rank=tasks["verdict"].map(WORST_FIRST.index))
    order = order.sort_values(["rank", *SERIES, "domain", "task"])
    return "\n\n".join(
        [
            text_table(task_texts(order)),
            text_table(domain_texts(domains)),
            NOTES,
            *(
                ["Not compared:\n" + "\n".join(f"  {line}" for line in left_out)]
                if left_out
                else []
            ),
        ]
    )


NOTES = (
    "Points are return / 10 or success in percent, means of the last common evaluations, with "
    "Welch 95 % intervals in brackets, which end at ±100 points. Behind an interval stands its "
    "coverage in simulated studies of these runs, if that is not 92 to 98 %.\nTasks are flagged "
    f"as worse or better at a false discovery rate of {share_text(LEVEL)}; domains at a "
    f"family-wise error rate of {share_text(LEVEL)} (Holm)."
)


def text_table(table: pd.DataFrame) -> str:
    """Return a table for the terminal."""
    return tabulate(
        table.to_numpy().tolist(), list(table.columns), tablefmt="simple", disable_numparse=True
    )


def task_texts(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the tasks as rounded text."""
    titles = task_titles(tasks["task"].unique())
    return pd.DataFrame(
        {
            "method": _names(tasks),
            "task": [titles[task] for task in tasks["task"]],
            "env steps": [f"{step:,}" for step in tasks["env_step"]],
            "budget": _percents(tasks["budget_share"]),
            "evaluations": tasks["evaluations"].tolist(),
            "seeds": [f"{a}/{b}" for a, b in tasks[["num_ours", "num_theirs"]].to_numpy()],
            **comparison_columns(tasks),
            "seeds needed": [forecast_text(row) for row in tasks.to_dict("records")],
            "remark": tasks["remark"].fillna("").tolist(),
        }
    )


def domain_texts(domains: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the domains as rounded text."""
    return pd.DataFrame(
        {
            "method": _names(domains),
            "domain": domains["domain"],
            "tasks": [f"{a} of {b}" for a, b in domains[["compared", "num_tasks"]].to_numpy()],
            "budget": _percents(domains["budget_share"]),
            **comparison_columns(domains),
            "remark": domains["remark"].fillna("").tolist(),
        }
    ).assign(**{name: domains[name].to_numpy() for name in WORST_FIRST})


def forecast_text(row: Mapping[Hashable, Any]) -> str:
    """Return what more seeds would settle, as text; empty if nothing is known.

    Args:
        row: a row of `Comparison.tasks`.
    """
    if row["verdict"] != OPEN or not np.isfinite(row["error"]):
        return ""
    if pd.isna(row["seeds_needed"]):
        return f"over {MOST_SEEDS}"
    low, high = int(row["seeds_needed_low"]), int(row["seeds_needed"])
    return str(Forecast(low, high, row["forecast"], row["forecast_probability"]))


def comparison_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return means, difference with interval, margin and verdict."""
    return {
        "ours": [_rounded(value) for value in table["ours"].to_numpy(float)],
        "published": [_rounded(value) for value in table["theirs"].to_numpy(float)],
        "difference": [
            estimate_text(*numbers)
            for numbers in table.reindex(columns=MEASURED).to_numpy(float).tolist()
        ],
        "margin": [f"±{margin:g}" for margin in table["margin"]],
        "verdict": table["verdict"].tolist(),
    }


MEASURED = ["difference", "low", "high", "coverage"]
"""Columns of a difference with its interval."""


def _names(table: pd.DataFrame) -> list[str]:
    """Return the methods, followed by what distinguishes the series in parentheses."""
    return [
        f"{method} ({details})" if details else method
        for method, details in zip(table["method"], series_details(table), strict=True)
    ]


def series_details(table: pd.DataFrame) -> list[str]:
    """Return what distinguishes the series of each row from others of the same method, as text.

    That is the source if it is not the run directories, a variant other than "default", such as
    `default[assets=standin]`, and variant, model size and dataset if the table has several of them;
    empty if the method alone names the series.

    Args:
        table: table with the columns `SERIES`.
    """
    kinds = table.groupby(["source", "method"])[["variant", "model_size", "dataset"]]
    differ = (kinds.transform("nunique") > 1).to_numpy()
    own = table[["source", "variant", "model_size", "dataset"]].to_numpy()
    return [
        ", ".join(
            [
                *([source] if source != RUNS_SOURCE else []),
                *([variant] if several or variant != "default" else []),
                *([size_text(size)] if sizes and size else []),
                *([dataset] if datasets and dataset else []),
            ]
        )
        for (source, variant, size, dataset), (several, sizes, datasets) in zip(
            own, differ, strict=True
        )
    ]


def _percents(shares: pd.Series) -> list[str]:
    """Return shares in percent; a dash for NaN."""
    return [share_text(share) for share in shares]


def _rounded(value: float) -> str:
    """Return the value with one decimal; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.1f}"
