"""One shard of a dataset on disk, and checks of its files against the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import is_unknown, unreadable
from tdmpc2.data.rows import DTYPES, HEADER_BYTES, first_fault, last_rows

_BLOCK_BYTES = 1 << 24
_CHANGED = "its checksum differs from the manifest: the file is damaged or was changed"
_ADVICE = "restore it, or build the dataset again"


@dataclass(frozen=True)
class Shard:
    """Complete episodes of one task, in the task's own dimensions.

    An episode of T transitions takes T + 1 consecutive rows: row t holds obs_t and the action
    and the reward that follow it; the action and reward of its last row are NaN.

    Attributes:
        task: name in the task table.
        path: the `.npy` file of rows.
        obs_dim, action_dim: O and A of the task.
        num_rows, num_episodes: counts according to the manifest.
        dtype: `float32` or `float16`.
        sha256: checksum of the file of rows.
        episodes_sha256: checksum of the file of episodes.
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
        """The `.npy` file of episode lengths and terminations."""
        return self.path.with_suffix(".episodes.npy")

    @property
    def num_transitions(self) -> int:
        """Number of transitions of all episodes."""
        return self.num_rows - self.num_episodes

    @property
    def sizes(self) -> dict[Path, int]:
        """Expected sizes of the two files, in bytes."""
        width = (self.obs_dim + self.action_dim + 1) * np.dtype(self.dtype).itemsize
        return {
            self.path: HEADER_BYTES + self.num_rows * width,
            self.episodes_path: HEADER_BYTES + self.num_episodes * 8,
        }

    def rows(self) -> np.ndarray:
        """Return the memory-mapped rows, `(num_rows, O + A + 1)`: observation, action, reward."""
        shape = (self.num_rows, self.obs_dim + self.action_dim + 1)
        return _mapped(self.path, shape, np.dtype(self.dtype))

    def episodes(self) -> np.ndarray:
        """Return memory-mapped `(num_episodes, 2)` int32: length T, and 1 if terminated, else 0.

        Raises:
            UserError: the file differs from its checksum in the manifest, or cannot be read.
        """
        episodes = self._episodes()
        if sha256_of(self.episodes_path) != self.episodes_sha256:
            raise UserError(f"{self.episodes_path}: {_CHANGED}; {_ADVICE}")
        return episodes

    def _episodes(self) -> np.ndarray:
        return _mapped(self.episodes_path, (self.num_episodes, 2), np.dtype(np.int32))

    def faults(self) -> list[str]:
        """Read both files completely and return a line for each fault."""
        faults = [
            f"{path}: {_CHANGED}"
            for path, sha256 in (
                (self.path, self.sha256),
                (self.episodes_path, self.episodes_sha256),
            )
            if sha256_of(path) != sha256
        ]
        try:
            fault = self._first_fault()
        except UserError as error:
            fault = str(error)
        return faults if fault is None else [*faults, fault]

    def _first_fault(self) -> str | None:
        """Return a description of the first invalid value, or None."""
        episodes = np.asarray(self._episodes())
        lengths, terminated = episodes.T
        for bad, text in (
            (lengths < 1, "has no transition"),
            (~np.isin(terminated, (0, 1)), "has a termination flag other than 0 and 1"),
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
    """Check that the files of a shard exist and have the expected sizes.

    Raises:
        UserError: a file is missing, or its size differs from the manifest.
        ValueError: the manifest has an unknown dtype.
    """
    if shard.dtype not in DTYPES:
        raise ValueError(f"dtype {shard.dtype}")
    for path, size in shard.sizes.items():
        try:
            found = path.stat().st_size if path.is_file() else None
        except OSError as error:  # e.g. a name in the manifest that is too long
            if is_unknown(error):
                failure = unreadable(path, error)
                raise failure from None
            raise UserError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from None
        if found is None:
            raise UserError(f"{path}: missing; {_ADVICE}")
        if found != size:
            raise UserError(
                f"{path}: {found:,} bytes instead of {size:,}: incomplete or damaged; {_ADVICE}"
            )


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Memory-map an `.npy` file.

    Raises:
        UserError: it is missing, or contains another array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"{path}: holds {array.shape} {array.dtype}, expected {shape} {dtype} (manifest)"
        )
    return array
