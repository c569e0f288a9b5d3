"""Room of what a run noted while it learned: losses, gradient norms and the rest of `train.csv`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records.problems import Problem

STEP = "env_step"
_COUNTS = ("env_step", "agent_step", "num_updates", "episode")


def read_training(directory: Path, problems: list[Problem], most: int = 0) -> pd.DataFrame:
    """The training record of a run.

    Args:
        directory: of the run.
        problems: grows by what could not be read; a run without the file is none.
        most: rows at most; more are averaged in equal shares. 0 for all rows.

    Returns:
        `env_step` and a column for each quantity, empty where there is no record.
    """
    path = directory / "train.csv"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return pd.DataFrame()
    except OSError as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return pd.DataFrame()
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written
    try:
        table = pd.read_csv(io.StringIO(whole))
        table = table.apply(pd.to_numeric, errors="coerce").dropna(subset=STEP)
    except (ValueError, KeyError) as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return pd.DataFrame()
    table = table.drop(columns=[name for name in _COUNTS[1:] if name in table])
    return _thinned(table, most) if most and len(table) > most else table


def _thinned(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Rows averaged in equal shares, each at its last step."""
    share = np.arange(len(table)) * most // len(table)
    means = table.groupby(share).mean()
    means[STEP] = table.groupby(share)[STEP].last()
    return means
