"""Layout and validity of the rows of a shard."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HEADER_BYTES = 128
"""Size of the header of every `.npy` file, for any shape, so that files can grow row by row."""

DTYPES = ("float32", "float16")
"""Dtypes of rows, the widest first."""


class RowFault(NamedTuple):
    """The first invalid value in some rows.

    Attributes:
        row: row number, counted from the first row that was checked.
        column: column in the concatenation of observation, action and reward.
        text: description of the fault.
    """

    row: int
    column: int
    text: str


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the header of a C-ordered `.npy` file (format 1.0), padded to `HEADER_BYTES`."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    num_chars = HEADER_BYTES - len(np.lib.format.magic(1, 0)) - 2
    body = text.ljust(num_chars - 1) + "\n"
    assert len(body) == num_chars
    return np.lib.format.magic(1, 0) + num_chars.to_bytes(2, "little") + body.encode("latin1")


def last_rows(lengths: np.ndarray) -> np.ndarray:
    """Mark the rows that end an episode.

    Args:
        lengths: `(E,)` transitions T of the episodes, which take T + 1 rows each.

    Returns:
        `(sum(T + 1),)` booleans.
    """
    ends = np.cumsum(lengths.astype(np.int64) + 1)
    last = np.zeros(int(ends[-1]) if len(ends) else 0, bool)
    last[ends - 1] = True
    return last


def assemble(
    obs: np.ndarray, action: np.ndarray, reward: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Assemble the rows of concatenated episodes.

    Args:
        obs: `(sum(T + 1), O)`.
        action: `(sum(T), A)`.
        reward: `(sum(T),)`.
        lengths: `(E,)`, T of each episode.

    Returns:
        `(sum(T + 1), O + A + 1)` float32.
    """
    last, obs_dim = last_rows(lengths), obs.shape[1]
    rows = np.empty((len(obs), obs_dim + action.shape[1] + 1), np.float32)
    rows[:, :obs_dim] = obs
    rows[~last, obs_dim:-1] = action
    rows[~last, -1] = reward
    rows[last, obs_dim:] = np.nan
    return rows


def first_fault(rows: np.ndarray, last: np.ndarray, obs_dim: int) -> RowFault | None:
    """Return the first invalid value, or None.

    Observations and rewards must be finite, and actions in [-1, 1]. In the last row of an
    episode, action and reward must be NaN.

    Args:
        rows: `(n, O + A + 1)` float32 or float16, C-ordered.
        last: `(n,)` booleans, true for rows that end an episode.
        obs_dim: O.
    """
    # The magnitudes of floats order as the integers of the same bits. Comparing integers is
    # exact, and many times faster than arithmetic in half precision.
    integer = np.dtype(f"uint{8 * rows.itemsize}")
    one, infinity = np.array([1, np.inf], rows.dtype).view(integer)
    magnitude = rows.view(integer) & integer.type(np.iinfo(integer).max >> 1)
    maximum = np.full(rows.shape[1], infinity - 1, integer)
    maximum[obs_dim:-1] = one
    bad = magnitude > maximum
    bad[last, obs_dim:] = magnitude[last, obs_dim:] <= infinity
    if not bad.any():
        return None
    row = int(bad.any(axis=1).argmax())
    column = int(bad[row].argmax())
    value = rows[row, column]
    if column < obs_dim:
        return RowFault(row, column, f"observation {column} is {value}")
    name = "reward" if column == rows.shape[1] - 1 else f"action {column - obs_dim}"
    if last[row]:
        return RowFault(row, column, f"{name} is {value} after the last transition, not NaN")
    limit = " (not in [-1, 1])" if np.isfinite(value) and name != "reward" else ""
    return RowFault(row, column, f"{name} is {value}{limit}")
