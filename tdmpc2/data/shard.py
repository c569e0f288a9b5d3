"""One shard of a dataset on disk, and whether it is what the manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.rows import DTYPES, HEADER_BYTES, first_fault, last_rows

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Shard:
    """Whole episodes of one task, in the task's own dims.

    An episode of T transitions takes T + 1 consecutive rows: row t holds obs_t and the action
    and the reward that follow it; of its last row, action and reward are NaN.

    Attributes:
        task: name in the task table.
        path: of the rows, an `.npy` file.
        obs_dim, action_dim: O and A of the task.
        num_rows, num_episodes: as the manifest says.
        dtype: `float32` or `float16`.
        sha256: of the file of rows.
        episodes_sha256: of the file of episodes.
    """

    task: str
    path: Path
    obs_dim: int
    action_dim: int
    num_rows: int
    num_episodes: int
    dtype: str
    sha256: str
    episodes_sha256: str

    @property
    def episodes_path(self) -> Path:
        """The `.npy` file of lengths and ends."""
        return self.path.with_suffix(".episodes.npy")

    @property
    def num_transitions(self) -> int:
        """Transitions of all episodes."""
        return self.num_rows - self.num_episodes

    @property
    def sizes(self) -> dict[Path, int]:
        """Bytes that each of the two files has if it is whole."""
        width = (self.obs_dim + self.action_dim + 1) * np.dtype(self.dtype).itemsize
        return {
            self.path: HEADER_BYTES + self.num_rows * width,
            self.episodes_path: HEADER_BYTES + self.num_episodes * 8,
        }

    def rows(self) -> np.ndarray:
        """`(num_rows, O + A + 1)`, memory-mapped: observation, action, reward."""
        shape = (self.num_rows, self.obs_dim + self.action_dim + 1)
        return _mapped(self.path, shape, np.dtype(self.dtype))

    def episodes(self) -> np.ndarray:
        """`(num_episodes, 2)` int32, memory-mapped: length T, and 1 where it terminated."""
        return _mapped(self.episodes_path, (self.num_episodes, 2), np.dtype(np.int32))

    def faults(self) -> list[str]:
        """What is wrong with the two files, read from beginning to end."""
        found = [
            f"{path}: its checksum is not the manifest's: the file was damaged or changed"
            for path, sha256 in (
                (self.path, self.sha256),
                (self.episodes_path, self.episodes_sha256),
            )
            if sha256_of(path) != sha256
        ]
        try:
            inside = self._fault_inside()
        except UserError as error:
            inside = str(error)
        return found if inside is None else [*found, inside]

    def _fault_inside(self) -> str | None:
        """The first value that no whole dataset can hold."""
        episodes = np.asarray(self.episodes())
        lengths, terminated = episodes.T
        for bad, text in (
            (lengths < 1, "has no transition"),
            (~np.isin(terminated, (0, 1)), "neither terminated nor not"),
        ):
            if bad.any():
                return f"{self.episodes_path}: episode {bad.argmax()} of {self.task} {text}"
        last = last_rows(lengths)
        if len(last) != self.num_rows:
            return (
                f"{self.path}: {self.num_rows} rows, but the episodes of {self.task} "
                f"take {len(last)}"
            )
        rows = self.rows()
        step = max(_BLOCK_BYTES // rows[:1].nbytes, 1)
        for first in range(0, self.num_rows, step):
            block = slice(first, first + step)
            fault = first_fault(np.asarray(rows[block]), last[block], self.obs_dim)
            if fault is not None:
                return f"{self.path}: {self.task}, row {first + fault.row}: {fault.text}"
        return None


def check_files(shard: Shard) -> None:
    """Refuses a shard whose files are not there, or not whole, by their sizes alone.

    Raises:
        UserError: one is missing, or of another size than the manifest says.
        ValueError: the manifest names an unknown dtype.
    """
    if shard.dtype not in DTYPES:
        raise ValueError(f"dtype {shard.dtype}")
    for path, size in shard.sizes.items():
        if not path.is_file():
            raise UserError(f"{path}: missing; restore it, or build the dataset anew")
        if path.stat().st_size != size:
            raise UserError(
                f"{path}: {path.stat().st_size:,} bytes instead of {size:,}: not the whole file; "
                "restore it, or build the dataset anew"
            )


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An `.npy` file, memory-mapped.

    Raises:
        UserError: it is missing, or holds another array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"{path}: holds {array.shape} {array.dtype}, not {shape} {dtype} as the manifest says"
        )
    return array
