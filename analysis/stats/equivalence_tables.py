"""Text tables of the comparison with the published curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tabulate import tabulate

from analysis.records.load import SERIES
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.equivalence import WORST_FIRST
from tdmpc2.envs.tasks import TASKS


def shown(tasks: pd.DataFrame, domains: pd.DataFrame) -> str:
    """Return both tables as text, worst verdicts first, with a note on false positives."""
    order = tasks.assign(rank=tasks["verdict"].map(WORST_FIRST.index))
    order = order.sort_values(["rank", *SERIES, "domain", "task"])
    return "\n\n".join(
        [
            text_table(task_texts(order)),
            text_table(domain_texts(domains)),
            "Points are return / 10 or success in percent, with Welch 95 % intervals in brackets. "
            f"If all {len(tasks)} tasks were truly equal, up to about {0.025 * len(tasks):.1f} "
            "would be expected to be flagged as worse by chance.",
        ]
    )


def text_table(table: pd.DataFrame) -> str:
    """Return a table for the terminal."""
    return tabulate(
        table.to_numpy().tolist(), list(table.columns), tablefmt="simple", disable_numparse=True
    )


def task_texts(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the tasks as rounded text."""
    return pd.DataFrame(
        {
            "method": _names(tasks),
            "task": [TASKS[task].title if task in TASKS else task for task in tasks["task"]],
            "env steps": [f"{step:,}" for step in tasks["env_step"]],
            "seeds": [f"{a}/{b}" for a, b in tasks[["num_ours", "num_theirs"]].to_numpy()],
            **comparison_columns(tasks),
            "seeds needed": [f"{need}" if pd.notna(need) else "" for need in tasks["seeds_needed"]],
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
            **comparison_columns(domains),
        }
    ).assign(**{name: domains[name] for name in WORST_FIRST})


def comparison_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return means, difference with interval, margin and verdict."""
    return {
        "ours": [_rounded(value) for value in table["ours"].to_numpy(float)],
        "published": [_rounded(value) for value in table["theirs"].to_numpy(float)],
        "difference": [
            "" if np.isnan(value) else f"{_rounded(value)} [{_rounded(low)}, {_rounded(high)}]"
            for value, low, high in table[["difference", "low", "high"]].to_numpy(float)
        ],
        "margin": [f"±{margin:g}" for margin in table["margin"]],
        "verdict": table["verdict"].tolist(),
    }


def _names(table: pd.DataFrame) -> list[str]:
    """Return the methods, with the source if it is not the run directories."""
    return [
        method if source == RUNS_SOURCE else f"{method} ({source})"
        for method, source in table[["method", "source"]].to_numpy()
    ]


def _rounded(value: float) -> str:
    """Return the value with one decimal; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.1f}"
