"""Summarize a dataset: returns, lengths and shares of its tasks, and its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2.common.system.texts import counted, seeds_text
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.rows import last_rows

NUM_BINS = 20
_BARS = " ▁▂▃▄▅▆▇█"
_BLOCK_ROWS = 1 << 18

COLUMNS = (
    *("task", "episodes", "transitions", "share", "min_length", "max_length", "terminated"),
    *("mean_return", "sd_return", "min_return", "max_return"),
)


@dataclass(frozen=True)
class TaskSummary:
    """Summary of the episodes of one task.

    Attributes:
        task: name of the task.
        lengths: `(E,)` transitions of each episode.
        terminated: number of episodes that terminated.
        returns: `(E,)` sums of rewards.
        share: fraction of the dataset's transitions.
    """

    task: str
    lengths: np.ndarray
    terminated: int
    returns: np.ndarray
    share: float

    def row(self) -> dict[str, Any]:
        """Return the values of `COLUMNS`."""
        values = (
            *(self.task, len(self.returns), int(self.lengths.sum()), self.share),
            *(int(self.lengths.min()), int(self.lengths.max()), self.terminated),
            *(float(self.returns.mean()), float(self.returns.std())),
            *(float(self.returns.min()), float(self.returns.max())),
        )
        return dict(zip(COLUMNS, values, strict=True))

    def line(self) -> str:
        """Return the task's line of the table for the terminal."""
        row = self.row()
        length = f"{row['min_length']}–{row['max_length']}"
        if row["min_length"] == row["max_length"]:
            length = f"{row['max_length']}"
        return (
            f"{row['task']:<28}{row['episodes']:>10,}{row['transitions']:>13,}"
            f"{100 * row['share']:>7.2f}%{length:>9}{row['mean_return']:>10.1f}"
            f"{row['min_return']:>10.1f}{row['max_return']:>10.1f}  {sparkline(self.returns)}"
        )


HEADER = (
    f"{'task':<28}{'episodes':>10}{'transitions':>13}{'share':>8}{'length':>9}"
    f"{'mean':>10}{'min':>10}{'max':>10}  returns, min to max"
)


def sparkline(values: np.ndarray) -> str:
    """Return a histogram of `NUM_BINS` characters, from the smallest value to the largest."""
    counts, _ = np.histogram(values, bins=NUM_BINS)
    # Round up, so that a bin with a single value is visible.
    levels = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[level] for level in levels)


def summarize(
    dataset: Dataset, task: str, progress: Callable[[int], object] = lambda rows: None
) -> TaskSummary:
    """Read the rewards of a task and summarize them.

    Args:
        dataset: a dataset that contains the task.
        task: name of the task.
        progress: called with the number of rows after each block.

    Raises:
        UserError: there is no such task, or a shard cannot be read.
    """
    returns, lengths, terminated = [], [], 0
    for shard in dataset.shards(task):
        episodes = np.asarray(shard.episodes())
        rows, reward = shard.rows(), np.empty(shard.num_rows)
        for first in range(0, shard.num_rows, _BLOCK_ROWS):
            block = slice(first, min(first + _BLOCK_ROWS, shard.num_rows))
            reward[block] = rows[block, -1]
            progress(block.stop - block.start)
        reward[last_rows(episodes[:, 0])] = 0.0
        starts = np.cumsum(episodes[:, 0] + 1) - (episodes[:, 0] + 1)
        returns.append(np.add.reduceat(reward, starts))
        lengths.append(episodes[:, 0])
        terminated += int(episodes[:, 1].sum())
    all_lengths = np.concatenate(lengths)
    share = int(all_lengths.sum()) / dataset.num_transitions
    return TaskSummary(task, all_lengths, terminated, np.concatenate(returns), share)


def origin(dataset: Dataset) -> list[str]:
    """Return lines that describe the sources of a dataset."""
    provenance = dataset.manifest["provenance"]
    made = f"{provenance['created']}, version {provenance['version'] or 'unknown'}"
    if provenance["commit"]:
        made += f", commit {provenance['commit'][:12]}"
    if provenance.get("command") == "convert":
        files = provenance["files"]
        size = sum(file["bytes"] for file in files) / 1e9
        return [f"converted from {counted(len(files), 'file')} of {size:.2f} GB ({made})"]
    runs = provenance.get("sources", [])
    return [
        f"built from {counted(len(runs), 'run')} ({made})",
        *(
            f"  {method} ({variant}): {_seeds(each)}"
            for (method, variant), each in _grouped(runs).items()
        ),
    ]


def _grouped(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the runs by method and variant."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["method"], run["variant"]), []).append(run)
    return groups


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    seeds = sorted({run["seed"] for run in runs})
    steps = sorted({run["env_steps"] for run in runs})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return f"{counted(len(runs), 'run')}, {seeds_text(seeds)}, {span} env steps"
