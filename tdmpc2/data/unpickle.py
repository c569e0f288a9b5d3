"""Read pickled TensorDicts without tensordict, and without running code that a pickle names."""

from __future__ import annotations

import collections
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2.common.system.errors import UserError


class UnknownNameError(pickle.UnpicklingError):
    """A pickle refers to an object that a file of tensors does not need."""


class TensorDictStub:
    """Replacement of `TensorDict` that stores the pickled state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Store the state: a dict of attributes, both up to version 0.3 and after."""
        self.state = state

    def tensors(self) -> dict[str, Any]:
        """Return the entries by key.

        Raises:
            ValueError: the state is not that of a TensorDict.
        """
        entries = self.state.get("_tensordict") if isinstance(self.state, dict) else None
        if not isinstance(entries, dict):
            raise ValueError("contains a TensorDict of an unknown layout")
        return entries


class _Ignored:
    """Replacement of the key bookkeeping of a locked TensorDict."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)


def _make_td(cls: Any, state: Any) -> TensorDictStub:
    """Replace `tensordict._reductions._make_td`, by which newer versions build a TensorDict."""
    if cls is not TensorDictStub:
        raise ValueError("contains a TensorDict of an unknown class")
    stub = TensorDictStub()
    stub.state = state
    return stub


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("__builtin__", "set"): set,  # Python 2's name of the module, which protocol 2 uses
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("tensordict.tensordict", "TensorDict"): TensorDictStub,
    ("tensordict._td", "TensorDict"): TensorDictStub,
    ("tensordict", "TensorDict"): TensorDictStub,
    ("tensordict._reductions", "_make_td"): _make_td,
    ("tensordict.utils", "_StringOnlyDict"): dict,
    ("tensordict.utils", "_LockedSchema"): _Ignored,
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that loads only the classes and functions needed for a TensorDict of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        value = getattr(torch, name, None) if module == "torch" else None
        if isinstance(value, torch.dtype):
            return value
        raise UnknownNameError(f"{module}.{name}")


class _Pickle:
    """Pickle module for `torch.load`, which handles storages itself."""

    __name__ = "tdmpc2.data.unpickle"
    Unpickler = _Unpickler


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a file that contains a TensorDict (or a dict), memory-mapped.

    Only the names that tensors need are resolved in the pickle; any other name is rejected
    before anything of it is called.

    Args:
        path: a file written by `torch.save`.

    Raises:
        UserError: the file is missing or incomplete, names an object that is rejected, or has
            other contents.
    """
    _check_archive(path)
    try:
        loaded = torch.load(
            path,
            map_location="cpu",
            pickle_module=_Pickle,
            weights_only=False,
            mmap=True,
        )
        return _entries(loaded)
    except UnknownNameError as error:
        raise UserError(
            f"{path}: rejected: it refers to {error}, which a file of tensors does not need; no "
            "code of it was run"
        ) from None
    except (ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.PickleError) as error:
        text = re.split(r"[\n.]", str(error), maxsplit=1)[0]
        raise UserError(f"{path}: cannot be read ({text or type(error).__name__})") from None


def _entries(loaded: Any) -> dict[str, Tensor]:
    """Return the tensors of a loaded TensorDict or dict."""
    entries = loaded.tensors() if isinstance(loaded, TensorDictStub) else loaded
    if not isinstance(entries, dict):
        raise ValueError(f"contains a {type(loaded).__name__}, not a TensorDict")
    others = [key for key, x in entries.items() if not isinstance(x, Tensor)]
    if others:
        raise ValueError(f"its entry '{others[0]}' is not a tensor")
    return entries


def _check_archive(path: Path) -> None:
    """Check that a file is a zip archive of tensors; `torch.load` would try other readers."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: incomplete, or not written by torch.save")
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "data.pkl" not in names or "constants.pkl" in names:  # the latter marks TorchScript
        raise UserError(f"{path}: not written by torch.save")
