"""Values that `torch.load(weights_only=True)` accepts, and checksums of tensors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tdmpc2.common.system.errors import UserError


def to_storable(value: Any) -> Any:
    """Replace NumPy arrays by tagged tensors, which `torch.load(weights_only=True)` accepts.

    A tensor that is a view of a larger one is copied, because torch would save the larger one.
    """
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(value.copy())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: to_storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_storable(item) for item in value)
    return value


def require_storable(what: str, state: Any) -> None:
    """Check that a checkpoint with a state can be loaded again.

    Args:
        what: whose state it is, for the message.
        state: the state.

    Raises:
        UserError: it cannot.
    """
    if not can_be_loaded(to_storable(state)):
        raise UserError(
            f"{what} returned {type(state).__name__}, which a checkpoint cannot hold; return "
            "numbers, text, arrays, or lists, tuples or dicts of these"
        )


def can_be_loaded(value: Any) -> bool:
    """Return whether a saved value can be loaded, which allows only some types."""
    saved = io.BytesIO()
    try:
        torch.save(value, saved)
        saved.seek(0)
        torch.load(saved, weights_only=True)
    except Exception:  # of any kind: methods of the value are called
        return False
    return True


def from_storable(value: Any) -> Any:
    """Invert `to_storable`."""
    if isinstance(value, dict):
        if value.keys() == {"__array__"}:
            return value["__array__"].numpy()
        return {key: from_storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_storable(item) for item in value)
    return value


def sha256_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a SHA-256 checksum of named tensors; their order and strides do not matter."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
