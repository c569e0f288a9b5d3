"""Write the shards of one task row by row, without holding a shard in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.system.atomic_files import fsync_directory, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.rows import HEADER_BYTES, RowFault, first_fault, last_rows, npy_header
from tdmpc2.envs.tasks import Task


class TaskWriter:
    """Writer of the shards of one task; they are filled one after the other with whole episodes.

    Args:
        folder: folder of the shards.
        task: the task.
        dtype: dtype of the rows.
        shard_bytes: maximum size of a shard, in bytes.
    """

    def __init__(self, folder: Path, task: Task, dtype: str, shard_bytes: int) -> None:
        self.folder, self.task, self.dtype = folder, task, np.dtype(dtype)
        self.width = task.obs_dim + task.action_dim + 1
        row_bytes = self.width * self.dtype.itemsize
        self.max_rows = max((shard_bytes - HEADER_BYTES) // row_bytes, 1)
        self.entries: list[dict[str, Any]] = []
        self._num_rows = 0
        self._episodes: list[np.ndarray] = []

    @property
    def _path(self) -> Path:
        """Path of the shard that is being filled."""
        return self.folder / f"{self.task.name}-{len(self.entries):03d}.npy"

    @property
    def _temporary(self) -> Path:
        return self._path.with_name(f".{self._path.name}.tmp")

    def add(
        self,
        rows: np.ndarray,
        lengths: np.ndarray,
        terminated: np.ndarray,
        locate: Callable[[RowFault], str],
    ) -> None:
        """Append episodes.

        Args:
            rows: `(sum(T + 1), O + A + 1)`, C-ordered, of the writer's dtype.
            lengths: `(E,)`, T of each episode.
            terminated: `(E,)`, whether each episode terminated.
            locate: function that describes the location of a fault in the source.

        Raises:
            UserError: a value is invalid.
        """
        assert rows.dtype == self.dtype
        assert rows.shape[1] == self.width
        fault = first_fault(rows, last_rows(lengths), self.task.obs_dim)
        if fault is not None:
            raise UserError(f"{locate(fault)}: {fault.text}")
        episodes = np.stack([lengths, terminated], axis=1).astype(np.int32)
        ends = np.cumsum(lengths.astype(np.int64) + 1)
        begin = first = 0
        while first < len(ends):
            limit = begin + self.max_rows - self._num_rows
            after = int(np.searchsorted(ends, limit, side="right"))
            if after == first and self._num_rows:
                self._close_shard()
                continue
            after = max(after, first + 1)  # an episode larger than a shard gets its own shard
            self._append(rows[begin : ends[after - 1]], episodes[first:after])
            begin, first = int(ends[after - 1]), after

    def _append(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        """Append rows to the shard that is being filled.

        The file is not kept open: a dataset may have more tasks than a process may open files.
        """
        with open(self._temporary, "ab") as file:
            if not self._num_rows:
                file.write(npy_header((0, self.width), self.dtype.name))
            file.write(rows.data)
        self._num_rows += len(rows)
        self._episodes.append(episodes)

    def _close_shard(self) -> None:
        """Complete the header and make both files durable, before the manifest lists them."""
        path, episodes = self._path, np.concatenate(self._episodes)
        with open(self._temporary, "r+b") as file:
            file.write(npy_header((self._num_rows, self.width), self.dtype.name))
            file.flush()
            os.fsync(file.fileno())
        episodes_path = path.with_suffix(".episodes.npy")
        with open(episodes_path, "wb") as file:
            file.write(npy_header(episodes.shape, episodes.dtype.name) + episodes.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._temporary, path)
        fsync_directory(self.folder)
        self.entries.append(
            {
                "file": path.name,
                "sha256": sha256_of(path),
                "episodes_sha256": sha256_of(episodes_path),
                "rows": self._num_rows,
                "episodes": len(episodes),
                "dtype": self.dtype.name,
            }
        )
        self._num_rows, self._episodes = 0, []

    def close(self) -> list[dict[str, Any]]:
        """Complete the last shard; return the manifest's entries of all shards."""
        if self._num_rows:
            self._close_shard()
        return self.entries
