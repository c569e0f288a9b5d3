"""Reader of `train.csv`: losses, gradient norms and other training metrics of a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records.problems import Problem
from tdmpc2.common.system.regular_files import regular

STEP = "env_step"
_COUNTS = ("env_step", "agent_step", "num_updates", "episode")


def read_training(directory: Path, problems: list[Problem], most: int = 0) -> pd.DataFrame:
    """Return the training metrics of a run.

    Args:
        directory: run directory.
        problems: list to which read errors are appended; a missing file is not a problem.
        most: maximum number of rows; longer records are averaged over groups of consecutive rows.
            0 keeps all rows.

    Returns:
        `env_step` and one column per metric; empty if there is no record.
    """
    path = directory / "train.csv"
    try:
        text = regular(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return pd.DataFrame()
    except OSError as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return pd.DataFrame()
    complete = text[: text.rfind("\n") + 1]  # the last line may be incomplete
    try:
        table = pd.read_csv(io.StringIO(complete))
        table = table.apply(pd.to_numeric, errors="coerce").dropna(subset=STEP)
    except (ValueError, KeyError) as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return pd.DataFrame()
    table = table.drop(columns=[name for name in _COUNTS[1:] if name in table])
    return _thinned(table, most) if most and len(table) > most else table


def _thinned(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Average groups of consecutive rows; each result has the last step of its group."""
    group = np.arange(len(table)) * most // len(table)
    means = table.groupby(group).mean()
    means[STEP] = table.groupby(group)[STEP].last()
    return means
