"""Read and write weights as torch and safetensors files, without running code of pickles."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tdmpc2.common.run.storable import to_storable
from tdmpc2.common.system.archives import check_members
from tdmpc2.common.system.atomic_files import check_output, full_disk, write_atomic
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular

SUFFIXES = (".pt", ".safetensors")
FORMAT = "tdmpc2-repro model"
"""Format name that this project's model files contain."""
_ZIP, _PICKLE, _POINTER = b"PK\x03\x04", b"\x80", b"version https://git-lfs"


class Contents(NamedTuple):
    """Contents of a file of weights.

    Attributes:
        weights: a state dict, including its other entries.
        about: description of the model in a model file of this project; None for other files.
    """

    weights: dict[str, Any]
    about: dict[str, Any] | None


def read_weights(path: Path) -> Contents:
    """Read a file of weights; only tensors and plain containers are loaded from pickles.

    Args:
        path: a torch file, `{"model": state dict}` or a bare state dict, or a safetensors file.

    Raises:
        UserError: the file is missing, damaged, incomplete or without weights, or loading it
            would run code.
    """
    try:
        with open(regular(path, None), "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    # A safetensors file begins with the length of its header, whose first byte may be any. Torch
    # files have another byte at the place of the brace.
    if start[8:9] == b"{":
        return _from_safetensors(path)
    if start.startswith((_ZIP, _PICKLE)):
        if start.startswith(_ZIP) and zipfile.is_zipfile(path):  # else torch says what is wrong
            check_members(path)
        return _from_torch(path)
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    if start.startswith(_POINTER):
        raise UserError(f"{path}: a Git LFS pointer, not the file itself; download the file")
    raise UserError(f"{path}: neither a torch nor a safetensors file")


def _from_torch(path: Path) -> Contents:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(error)}") from None
    except Exception as error:  # torch raises many different errors for damaged files
        raise UserError(f"{path}: damaged or incomplete ({_first_line(error)})") from None
    about = None
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        about = {key: value for key, value in content.items() if key != "model"}
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: contains no weights (a state dict, or one under 'model')")
    return Contents({str(key): value for key, value in state.items()}, about)


def _refusal(error: Exception) -> str:
    """Return the reason why a pickle was not loaded; torch's text advises to load it unsafely."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return "damaged or incomplete (not a pickle of tensors and plain containers)"
    return (
        f"rejected, because loading it would run code of {named[1]}; save its weights as a state "
        "dict of tensors and plain containers"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _safetensors() -> Any:
    """Import the package safetensors, which only this file uses.

    Raises:
        UserError: it is not installed.
    """
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise UserError(
            "safetensors files need the package safetensors, which is not installed: "
            "pip install safetensors"
        ) from None
    return safetensors


def _from_safetensors(path: Path) -> Contents:
    library = _safetensors()
    try:
        with library.safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, library.SafetensorError) as error:
        raise UserError(f"{path}: damaged or incomplete ({_first_line(error)})") from None
    if metadata.get("creator") != FORMAT:
        return Contents(weights, None)
    try:
        return Contents(weights, dict(json.loads(metadata["about"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged metadata ({_first_line(error)})") from None


# --- writing -------------------------------------------------------------------------------


def check_target(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check that a file can be written, before any work is done.

    Args:
        path: path of the new file.
        suffixes: valid suffixes.

    Raises:
        UserError: the suffix is wrong, or the file exists or cannot be written.
    """
    if path.suffix not in suffixes:
        raise UserError(f"out={path}: must end in {' or '.join(suffixes)}")
    make_room(path)
    if path.suffix == ".safetensors":
        _safetensors()


def make_room(path: Path) -> None:
    """Check that a file does not exist yet and can be written, and create its folder.

    Raises:
        UserError: the file exists or cannot be written.
    """
    if path.exists():
        raise UserError(f"out={path}: already exists; choose another, or remove it")
    check_output(path)


def write_weights(
    path: Path, weights: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> None:
    """Write weights atomically, in the format of the file's suffix.

    Args:
        path: path that ends in one of `SUFFIXES`; its folder exists.
        weights: a state dict; safetensors files contain only its tensors.
        about: description of the model for a model file; None for a file of weights alone.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        if path.suffix == ".safetensors":
            library = _safetensors()
            # The format does not allow tensors that share memory.
            tensors = {k: v.clone() for k, v in weights.items() if isinstance(v, Tensor)}
            described = {} if about is None else {"creator": FORMAT, "about": json.dumps(about)}
            data = library.torch.save(tensors, metadata={"format": "pt", **described})
            write_atomic(path, lambda file: file.write(data))
        else:
            content = {**(about or {}), "model": to_storable(dict(weights))}
            write_atomic(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        full = full_disk(error)
        if full is not None:
            raise full from None
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        raise
