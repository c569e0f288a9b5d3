"""Checks of what a simulator returns: no impossible value may reach replay buffer and records."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
NUMBERS = "fiub"  # kinds of NumPy: floats, integers and booleans


class ReturnedError(ValueError):
    """A simulator returned something else than expected; the message completes "returned"."""


def items(returned: Any, names: tuple[str, ...]) -> Any:
    """Return the values that a function returned.

    Args:
        returned: what it returned.
        names: names of the values.

    Raises:
        ReturnedError: it is no tuple of as many values.
    """
    if not isinstance(returned, tuple | list):
        raise ReturnedError(f"{type(returned).__name__}, not a tuple of {', '.join(names)}")
    if len(returned) != len(names):
        raise ReturnedError(f"{len(returned)} values, not {len(names)}: {', '.join(names)}")
    return returned


def vector(obs: Any, shape: tuple[int, ...], name: str = "") -> np.ndarray:
    """Return an observation as a new array `(O,)` float32.

    Args:
        obs: what was returned.
        shape: its expected shape.
        name: its name, if it is an entry of a dictionary.

    Raises:
        ReturnedError: it has another shape, is no array of numbers, or is not finite in float32.
    """
    label = f"observation '{name}'" if name else "observation"
    array = np.asarray(obs)
    if array.dtype.kind not in NUMBERS:
        raise ReturnedError(f"an {label} of {_kind(obs, array)}, not of numbers")
    if array.shape != shape:
        raise ReturnedError(f"an {label} {array.shape}, not {shape}")
    if array.dtype == np.float32:
        flat = array.flatten()
    else:
        with np.errstate(over="ignore"):
            flat = array.astype(np.float32).ravel()
    if not np.isfinite(flat).all():
        if np.isfinite(array).all():
            most = float(np.abs(array).max())
            raise ReturnedError(f"{most:g} in an {label}, which is too large for float32")
        raise ReturnedError(f"NaN or Inf in an {label}")
    return flat


def reward_of(value: Any) -> float:
    """Return a reward as a number.

    Raises:
        ReturnedError: it is no single number, or is not finite in float32.
    """
    if type(value) is not float:
        array = np.asarray(value)
        if array.dtype.kind not in NUMBERS or array.size != 1:
            raise ReturnedError(f"the reward {_shown(value)}; it must be one number")
        value = float(array.item())
    if not abs(value) <= LARGEST:
        raise ReturnedError(f"the reward {value:g}; it must be finite in float32")
    return value


def flag(value: Any, name: str) -> bool:
    """Return whether an episode has ended.

    Args:
        value: what was returned.
        name: `terminated` or `truncated`.

    Raises:
        ReturnedError: it is not True or False; a reward in its place is therefore found.
    """
    if type(value) is bool:
        return value
    array = np.asarray(value)
    if array.dtype.kind in "biu" and array.size == 1 and array.item() in (0, 1):
        return bool(array.item())
    raise ReturnedError(f"{name}={_shown(value)}; it must be True or False")


def success_of(value: Any, name: str = "success") -> float:
    """Return a success as 0.0 or 1.0.

    Args:
        value: what was returned.
        name: key of `info`.

    Raises:
        ReturnedError: it is something else.
    """
    if type(value) is bool or (type(value) is float and value in (0.0, 1.0)):
        return float(value)
    array = np.asarray(value)
    if array.dtype.kind in NUMBERS and array.size == 1 and array.item() in (0, 1):
        return float(array.item())
    raise ReturnedError(f"{name}={_shown(value)}; it must be True or False, or 1 or 0")


def _shown(value: Any) -> str:
    """Return a value as a message shows it: shape and type of an array, else its text."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return f"{value!r:.40}"


def _kind(value: Any, array: np.ndarray) -> str:
    """Return the type of a value that is no array of numbers."""
    return type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)
