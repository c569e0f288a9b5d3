"""The numeric path: chosen by a fixed rule, recorded, reused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.common.device import apply_numeric_path, choose_device, numeric_path
from tdmpc2.common.errors import UserError
from tdmpc2.common.files import read_json, write_json

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def apply(file: Path, threads: int | None = None, *, allow: bool = False) -> dict[str, Any]:
    return apply_numeric_path(file, CPU, threads, allow_change=allow)


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "", "cuda:x"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UserError, match=f"device={name}: unknown device"):
        choose_device(name)


def test_a_device_must_be_there() -> None:
    with pytest.raises(UserError, match="device=cuda:99: no such CUDA device is available here"):
        choose_device("cuda:99")


def test_the_path_says_what_decides_rounding() -> None:
    path = numeric_path(CPU, 3)
    assert (path["device"], path["threads"], path["precision"]) == ("cpu", 3, "fp32")
    assert path["torch"] == torch.__version__
    assert path["cpu"]
    assert path == numeric_path(CPU, 3)
    assert numeric_path(CPU, 3, renderer="egl") == {**path, "renderer": "egl"}


def test_recorded_and_applied(tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    path = apply(file, 2)
    assert read_json(file) == path
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert apply(file)["threads"] == 2  # no wish: the recorded number
    assert torch.get_num_threads() == 2


def test_the_default_is_what_torch_has(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    assert apply(tmp_path / "numeric.json")["threads"] == 2


def test_a_change_is_refused_unless_allowed(tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    path = apply(file, 1)
    with pytest.raises(UserError, match=r"threads 1 → 2.*allow_numeric_change=true"):
        apply(file, 2)
    assert read_json(file) == path
    assert torch.get_num_threads() == 1
    assert apply(file, 2, allow=True)["threads"] == 2
    assert read_json(file)["threads"] == 2


@pytest.mark.parametrize("key", ["torch", "cpu", "cpu_flags", "cpu_capability", "device", "gpu"])
def test_another_machine_is_another_path(key: str, tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    write_json(file, {**numeric_path(CPU, 1), key: "another"})
    with pytest.raises(UserError, match=f"{key} another → "):
        apply(file)
