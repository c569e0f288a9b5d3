"""What is loaded from a pickle, and what is rejected before it runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.common.system.errors import UserError
from tdmpc2.data.unpickle import load_tensors
from tests.datasets.official import LAYOUTS, Layout, items, pretended, save, split


def small() -> dict[str, torch.Tensor]:
    return next(split(items("mt80"), 3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout: Layout, tmp_path: Path) -> None:
    tensors = small()
    read = load_tensors(save(tmp_path / "x.pt", tensors, layout))
    assert read.keys() == tensors.keys()
    for key, value in tensors.items():
        assert torch.equal(read[key].nan_to_num(7), value.nan_to_num(7))


def test_a_real_tensordict_is_read(tmp_path: Path) -> None:
    tensordict = pytest.importorskip("tensordict")
    tensors = small()
    whole = tensordict.TensorDict(tensors, batch_size=tensors["task"].shape)
    halves = [whole[:2], whole[2:]]
    for made in (whole, torch.cat(halves), whole.clone().lock_(), whole[:2]):
        torch.save(made, tmp_path / "x.pt")
        read = load_tensors(tmp_path / "x.pt")
        assert read.keys() == tensors.keys()
        for key in tensors:
            assert torch.equal(read[key].nan_to_num(7), made[key].nan_to_num(7))


def test_a_plain_dict_is_read(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "x.pt")
    assert torch.equal(load_tensors(tmp_path / "x.pt")["task"], small()["task"])


def test_the_file_is_mapped_not_copied(tmp_path: Path) -> None:
    read = load_tensors(save(tmp_path / "x.pt", small()))
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(tmp_path / "x.pt") in mapped
    assert read["obs"].dtype == torch.float32


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: Path, how: Any) -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how, (f"touch {self.mark}",)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("how", "name"), [(os.system, "posix.system"), (eval, "builtin")])
def test_a_malicious_pickle_is_refused_and_not_run(
    how: Any, name: str, inside: bool, tmp_path: Path
) -> None:
    """At the top level, or in place of a tensor; plain unpickling would run it."""
    mark, path = tmp_path / "mark", tmp_path / "x.pt"
    with pretended("0.15") as make:
        evil = Evil(mark, how)
        torch.save(make({**small(), "extra": evil}) if inside else evil, path)
    with pytest.raises(UserError, match=rf"rejected: it refers to _*{name}.*no code of it was run"):
        load_tensors(path)
    assert not mark.exists()
    if how is os.system and not inside:
        torch.load(path, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch", "hub"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("builtins", "getattr"),
        ("tensordict.tensordict", "LazyStackedTensorDict"),
        ("tensordict._td", "_SubTensorDict"),
        ("tensordict._reductions", "CLS_MAP"),
        ("collections", "OrderedDict.fromkeys"),
    ],
)
def test_only_listed_names_are_found(module: str, name: str, tmp_path: Path) -> None:
    """The error names any other object, whether it could be imported or not."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02c" + f"{module}\n{name}\n".encode() + b".")
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    with pytest.raises(UserError, match=f"rejected: it refers to {module}.{name}"):
        load_tensors(path)


def test_what_is_no_file_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(UserError, match=r"x\.pt: no such file"):
        load_tensors(path)
    whole = save(tmp_path / "whole.pt", small()).read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"x\.pt: incomplete, or not written by torch\.save"):
            load_tensors(path)
    path.write_bytes(pickle.dumps(Evil(tmp_path / "mark", os.system)))
    with pytest.raises(UserError, match="incomplete, or not written"):
        load_tensors(path)
    torch.save(small(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="incomplete, or not written"):
        load_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/notes.txt", "")
    with pytest.raises(UserError, match=r"not written by torch\.save"):
        load_tensors(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))
    with pytest.raises(UserError, match=r"not written by torch\.save"):
        load_tensors(path)
    assert not (tmp_path / "mark").exists()


def test_what_holds_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for value, hint in (
        ([1, 2], "contains a list, not a TensorDict"),
        ({"obs": 3}, "its entry 'obs' is not a tensor"),
        ({"obs": {"state": torch.zeros(1)}}, "its entry 'obs' is not a tensor"),
    ):
        torch.save(value, path)
        with pytest.raises(UserError, match=hint):
            load_tensors(path)
    with pretended("0.3") as make:
        made = make(small())
        made.__dict__ = {"_source": {}}
        torch.save(made, path)
    with pytest.raises(UserError, match="a TensorDict of an unknown layout"):
        load_tensors(path)
