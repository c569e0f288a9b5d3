"""Opens files of pickled TensorDicts, without tensordict and without running what they name."""

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
    """A pickle names something that a file of tensors has no need of."""


class TensorDictStub:
    """Stands in for a `TensorDict`: keeps what was saved of it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Versions up to 0.3 and after: a dict of attributes."""
        self.state = state

    def tensors(self) -> dict[str, Any]:
        """The entries by key.

        Raises:
            ValueError: nothing like the attributes of a TensorDict was saved.
        """
        entries = self.state.get("_tensordict") if isinstance(self.state, dict) else None
        if not isinstance(entries, dict):
            raise ValueError("holds a TensorDict of an unknown layout")
        return entries


class _Ignored:
    """Stands in for what a locked TensorDict knows of its keys."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)


def _make_td(cls: Any, state: Any) -> TensorDictStub:
    """How newer versions are put together: `tensordict._reductions._make_td`."""
    if cls is not TensorDictStub:
        raise ValueError("holds a TensorDict of an unknown kind")
    made = TensorDictStub()
    made.state = state
    return made


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("__builtin__", "set"): set,  # Python 2's name of the module, as protocol 2 has it
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
    """Finds only what the tensors of a TensorDict are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        value = getattr(torch, name, None) if module == "torch" else None
        if isinstance(value, torch.dtype):
            return value
        raise UnknownNameError(f"{module}.{name}")


class _Pickle:
    """What `torch.load` asks of a pickle module; storages it finds by itself."""

    __name__ = "tdmpc2.data.unpickle"
    Unpickler = _Unpickler


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that holds a TensorDict (or a dict), memory-mapped.

    Only names needed for tensors are looked up in the pickle; any other is refused before
    anything of it is called.

    Args:
        path: written by `torch.save`.

    Raises:
        UserError: no such file, not a whole one, a name that is refused, or other content.
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
        entries = loaded.tensors() if isinstance(loaded, TensorDictStub) else loaded
        if not isinstance(entries, dict):
            raise ValueError(f"holds a {type(loaded).__name__}, not a TensorDict")
        others = [key for key, x in entries.items() if not isinstance(x, Tensor)]
        if others:
            raise ValueError(f"its entry '{others[0]}' is no tensor")
    except UnknownNameError as error:
        raise UserError(
            f"{path}: refused: it names {error}, which no file of tensors needs; nothing of it "
            "was run"
        ) from None
    except (ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.PickleError) as error:
        text = re.split(r"[\n.]", str(error), maxsplit=1)[0]
        raise UserError(f"{path}: cannot be read ({text or type(error).__name__})") from None
    return entries


def _check_archive(path: Path) -> None:
    """Refuses what is not an archive of tensors: `torch.load` would try other readers on it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: cut short, or not written by torch.save")
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "data.pkl" not in names or "constants.pkl" in names:  # the latter: a program, TorchScript
        raise UserError(f"{path}: not written by torch.save")
