"""What a dataset holds: returns, lengths and shares of its tasks, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """The episodes of one task.

    Attributes:
        task: name.
        lengths: `(E,)` transitions of each episode.
        terminated: how many ended for good.
        returns: `(E,)` sums of rewards.
        share: of the dataset's transitions.
    """

    task: str
    lengths: np.ndarray
    terminated: int
    returns: np.ndarray
    share: float

    def row(self) -> dict[str, Any]:
        """The values of `COLUMNS`."""
        values = (
            *(self.task, len(self.returns), int(self.lengths.sum()), self.share),
            *(int(self.lengths.min()), int(self.lengths.max()), self.terminated),
            *(float(self.returns.mean()), float(self.returns.std())),
            *(float(self.returns.min()), float(self.returns.max())),
        )
        return dict(zip(COLUMNS, values, strict=True))

    def line(self) -> str:
        """The row of the table in the terminal."""
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
    """A histogram of `NUM_BINS` characters, from the least value to the greatest."""
    counts, _ = np.histogram(values, bins=NUM_BINS)
    # Rounded up: a bin with anything in it shows.
    levels = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[level] for level in levels)


def summarize(
    dataset: Dataset, task: str, progress: Callable[[int], object] = lambda rows: None
) -> TaskSummary:
    """Reads the rewards of a task.

    Args:
        dataset: that has the task.
        task: name.
        progress: gets the numbers of rows as they are read.

    Raises:
        UserError: no such task, or a shard that cannot be read.
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
    every = np.concatenate(lengths)
    share = int(every.sum()) / dataset.num_transitions
    return TaskSummary(task, every, terminated, np.concatenate(returns), share)


def origin(dataset: Dataset) -> list[str]:
    """Lines that say where a dataset comes from."""
    provenance = dataset.manifest["provenance"]
    made = f"{provenance['created']}, version {provenance['version']}"
    if provenance["commit"]:
        made += f", commit {provenance['commit'][:12]}"
    if provenance.get("command") == "convert":
        files = provenance["files"]
        size = sum(file["bytes"] for file in files) / 1e9
        return [f"converted of {len(files)} files of {size:.2f} GB ({made})"]
    runs = provenance.get("sources", [])
    return [
        f"built of {len(runs)} runs ({made})",
        *(
            f"  {method} ({variant}): {_seeds(each)}"
            for (method, variant), each in _grouped(runs).items()
        ),
    ]


def _grouped(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Runs by method and variant."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["method"], run["variant"]), []).append(run)
    return groups


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    seeds = sorted({run["seed"] for run in runs})
    steps = sorted({run["env_steps"] for run in runs})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}, {span} env steps"
