"""Read and check the files of the official datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import listed_paths
from tdmpc2.data.rows import DTYPES
from tdmpc2.data.unpickle import load_tensors
from tdmpc2.envs.tasks import Task

ROWS_PER_ITEM = {"mt30": 501, "mt80": 101}
"""Rows of an item in each official dataset.

In mt80, DMControl episodes are cut into 5 items of 100 transitions.
"""

_FLOATS = {torch.float16: "float16", torch.float32: "float32"}
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class ChunkLayout:
    """The contents that the files of a suite must have.

    Attributes:
        tasks: the tasks by index.
        num_rows: R, rows of an item.
        obs_dim, action_dim: dimensions of the largest task; smaller tasks are padded with zeros.
    """

    tasks: tuple[Task, ...]
    num_rows: int
    obs_dim: int
    action_dim: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, without the leading dimension of items."""
        each = {"obs": (self.obs_dim,), "action": (self.action_dim,), "reward": (), "task": ()}
        return {key: (self.num_rows, *shape) for key, shape in each.items()}


def layout_of(suite: str, tasks: Sequence[Task]) -> ChunkLayout:
    """Return the layout of a suite's official files."""
    obs_dim, action_dim = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    return ChunkLayout(tuple(tasks), ROWS_PER_ITEM[suite], obs_dim, action_dim)


class Chunk:
    """One official file, memory-mapped; everything is checked but the values of its episodes.

    Attributes:
        path: path of the file.
        task: `(N,)` task index of each item.
        dtype: the widest of its float dtypes.

    Args:
        path: path of the file.
        layout: the contents it must have.

    Raises:
        UserError: it does not have this layout; the message names the file and, for an invalid
            task index, the item.
    """

    def __init__(self, path: Path, layout: ChunkLayout) -> None:
        self.path, self.layout = path, layout
        tensors = load_tensors(path)
        _check_tensors(path, tensors, layout)
        floats = [_FLOATS[tensors[key].dtype] for key in ("obs", "action", "reward")]
        self.dtype = min(floats, key=DTYPES.index)  # DTYPES lists the widest first
        # No copy: the arrays share the memory of the mapped file.
        self._arrays = {key: tensors[key].numpy() for key in layout.shapes}
        self.task = self._read_tasks(self._arrays["task"])

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.task)

    def _read_tasks(self, task: np.ndarray) -> np.ndarray:
        """Return the task of each item, which must be the same in all its rows."""
        first = np.empty(len(task), np.int64)
        for block in self.blocks(task[:1].nbytes, len(task)):
            rows = task[block]
            if not np.isfinite(rows).all():
                raise UserError(
                    f"{self.path}: a task index is not finite (at or after item {block.start})"
                )
            first[block] = rows[:, 0]
            wrong = (rows != first[block][:, None]).any(axis=1)
            if wrong.any():
                item = block.start + int(wrong.argmax())
                raise UserError(f"{self.path}: item {item}: its rows have different task indices")
        wrong = (first < 0) | (first >= len(self.layout.tasks))
        if wrong.any():
            item = int(wrong.argmax())
            raise UserError(
                f"{self.path}: item {item}: task {first[item]}, but the suite has "
                f"{len(self.layout.tasks)} (0 to {len(self.layout.tasks) - 1})"
            )
        return first

    @staticmethod
    def blocks(item_bytes: int, num_items: int) -> Iterator[slice]:
        """Yield slices of items that fit into a fixed amount of memory."""
        step = max(_BLOCK_BYTES // max(item_bytes, 1), 1)
        for first in range(0, num_items, step):
            yield slice(first, min(first + step, num_items))

    def episodes(self, dtype: str) -> Iterator[tuple[Task, np.ndarray, np.ndarray]]:
        """Yield the items of each task, block by block, in the row layout of a dataset.

        In the file, row t holds obs_t with the action and the reward that led to it, and the
        action and reward of row 0 are filler. In a dataset, row t holds obs_t with the action and
        the reward that follow it, and those of the last row are NaN.

        Args:
            dtype: dtype of the rows.

        Yields:
            Task, items `(n,)`, and rows `(n * R, O + A + 1)` in the task's own dimensions.

        Raises:
            UserError: the padding beyond a task's dimensions is not zero; the message names item
                and row.
        """
        widths = [self._arrays[key][:1].nbytes for key in ("obs", "action", "reward")]
        for block in self.blocks(sum(widths), len(self)):
            order = np.argsort(self.task[block], kind="stable")
            tasks, firsts = np.unique(self.task[block][order], return_index=True)
            for index, items in zip(tasks, np.split(order, firsts[1:]), strict=True):
                yield self._rows(int(index), block.start + items, dtype)

    def _rows(self, index: int, items: np.ndarray, dtype: str) -> tuple[Task, Any, np.ndarray]:
        """Return the rows of some items of one task."""
        task = self.layout.tasks[index]
        o, a = task.obs_dim, task.action_dim
        obs, action = self._arrays["obs"][items], self._arrays["action"][items]
        self._check_padding("obs", obs, o, items, task)
        self._check_padding("action", action, a, items, task, first_row=1)
        rows = np.empty((len(items), self.layout.num_rows, o + a + 1), dtype)
        with np.errstate(over="ignore"):  # values that overflow the dtype are rejected as infinite
            rows[:, :, :o] = obs[:, :, :o]
            rows[:, :-1, o:-1] = action[:, 1:, :a]
            rows[:, :-1, -1] = self._arrays["reward"][items][:, 1:]
        rows[:, -1, o:] = np.nan
        return task, items, rows.reshape(-1, rows.shape[2])

    def _check_padding(
        self,
        key: str,
        array: np.ndarray,
        num_dims: int,
        items: np.ndarray,
        task: Task,
        first_row: int = 0,
    ) -> None:
        """Check that the values beyond a task's dimensions are zero, from row `first_row` on."""
        padding = array[:, first_row:, num_dims:]
        if not padding.any():
            return
        i, row, column = np.argwhere(padding)[0]
        raise UserError(
            f"{self.path}: item {items[i]} ({task.name}), row {first_row + row}: "
            f"{key} {num_dims + column} is {padding[i, row, column]}, not 0, but the task has "
            f"only {num_dims}"
        )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], layout: ChunkLayout) -> None:
    """Check that no tensor is missing, and the shapes and dtypes."""
    missing = [key for key in layout.shapes if key not in tensors]
    if missing:
        raise UserError(f"{path}: has no '{missing[0]}', only {', '.join(sorted(tensors))}")
    num_items = tuple(tensors["obs"].shape[:1])
    for key, shape in layout.shapes.items():
        actual, expected = tuple(tensors[key].shape), (*num_items, *shape)
        if actual != expected:
            raise UserError(f"{path}: '{key}' has shape {actual}, expected {expected}")
        dtypes = (*_FLOATS, *_INTEGERS) if key == "task" else tuple(_FLOATS)
        if tensors[key].dtype not in dtypes:
            names = ", ".join(map(str, dtypes))
            raise UserError(f"{path}: '{key}' has dtype {tensors[key].dtype} (valid: {names})")


def find_chunks(text: str) -> list[Path]:
    """Return the files that an argument names: a list of files, or a folder of `.pt` files.

    Raises:
        UserError: there are no files, or a file is named twice.
    """
    named = [path.resolve() for path in listed_paths(text, "files")]
    paths = named
    if len(named) == 1 and named[0].is_dir():
        paths = sorted(named[0].glob("*.pt"), key=_by_number)
    if not paths:
        raise UserError(f"files={text}: contains no .pt files")
    if len(set(paths)) < len(paths):
        raise UserError(f"files={text}: a file is named twice")
    return paths


def _by_number(path: Path) -> list[Any]:
    """Return a sort key that puts `chunk_10.pt` after `chunk_9.pt`."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.name)]
