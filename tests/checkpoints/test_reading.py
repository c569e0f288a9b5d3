"""Files of weights: which are loaded, and which are rejected without loading."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.checkpoints.reading import read_weights, write_weights
from tdmpc2.common.system.errors import UserError
from tests.checkpoints.models import model, official_file, refused
from tests.disk_errors import make_hole


def test_a_bare_state_dict_is_a_checkpoint_too(tmp_path: Path) -> None:
    state = read_weights(official_file(tmp_path / "a.pt", model())).weights
    torch.save(state, tmp_path / "b.pt")
    assert load_model(tmp_path / "b.pt", tasks="walker-walk").env.task_names == ("walker-walk",)


class Bomb:
    """An object whose unpickling would run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path: Path, zipped: bool) -> None:
    content = {"model": {"x": torch.zeros(1)}, "bomb": Bomb(tmp_path / "exploded")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "a.pt", r"rejected, because loading it would run code of (posix|nt)\.mkdir")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [-1, 5000, 70])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_cut_short_are_refused(tmp_path: Path, keep: int, zipped: bool) -> None:
    state = {"model": model().weights}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:keep])
    refused(tmp_path / "a.pt", "damaged or incomplete")


def test_a_file_with_a_hole_is_refused(tmp_path: Path) -> None:
    """`torch.load` reads it with zeros instead of weights."""
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    assert read_weights(path).weights["weight"].sum() == 1000
    name = make_hole(path)
    assert torch.load(path, weights_only=True)["weight"].sum() < 1000
    with pytest.raises(UserError, match=f"damaged, the checksum of {name} does not match; get"):
        read_weights(path)


def test_without_safetensors_the_message_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install safetensors"):
        save_model(tmp_path / "a.safetensors", model())
    (tmp_path / "b.safetensors").write_bytes(b"")
    refused(tmp_path / "b.safetensors", "pip install safetensors")


def test_safetensors_files_of_all_header_lengths_are_read(tmp_path: Path) -> None:
    """The first byte of one in 32 is that of a pickle: the length is a multiple of 8."""
    pytest.importorskip("safetensors")
    path, first = tmp_path / "a.safetensors", set()
    for length in range(0, 256, 8):
        note = {"note": "a" * length}
        write_weights(path, {"x": torch.ones(1)}, note)
        first.add(path.read_bytes()[:1])
        assert read_weights(path) == ({"x": torch.ones(1)}, note)
    assert b"\x80" in first
    assert len(first) == 32


def test_a_safetensors_file_cut_short_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    save_model(tmp_path / "a.safetensors", model())
    data = (tmp_path / "a.safetensors").read_bytes()
    for keep in (-1, 3000, 5):
        (tmp_path / "b.safetensors").write_bytes(data[:keep])
        refused(tmp_path / "b.safetensors", "damaged or incomplete")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither a torch nor a safetensors file"),
        (b"<!DOCTYPE html>", "neither a torch nor a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    refused(tmp_path / "a.pt", message)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "No such file")
    refused(tmp_path, "neither a run directory nor a checkpoint")
    contents: tuple[Any, ...] = ({"model": 3}, {"agent": {}}, [1, 2])
    for content in contents:
        torch.save(content, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", "contains no weights")
