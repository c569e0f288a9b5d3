"""Where the native bfloat16 kernels are used, and how a run records it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.common.numerics import fused_bf16, numeric_path
from tdmpc2.common.numerics.fused_bf16 import Choice
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

CPU = torch.device("cpu")
INTEL, AMD = "GenuineIntel", "AuthenticAMD"


@pytest.mark.parametrize(
    ("vendor", "flags", "used", "reason"),
    [
        (INTEL, ("amx_bf16", "amx_tile", "avx512_bf16"), True, "AMX"),
        (AMD, ("avx512_bf16",), True, "AVX512-BF16 on AMD"),
        (INTEL, ("avx512_bf16",), False, "slower than fp32 on Intel"),
        (INTEL, ("avx512f",), False, "neither AMX nor AVX512-BF16"),
        ("", (), False, "neither AMX nor AVX512-BF16"),
    ],
)
def test_the_rule(
    vendor: str, flags: tuple[str, ...], used: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(fused_bf16, "cpu_flags", lambda: flags)
    monkeypatch.setattr(fused_bf16, "cpu_field", lambda name: {"vendor_id": vendor}[name])
    assert fused_bf16.choice().used is used
    assert reason in fused_bf16.choice().reason
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not fused_bf16.choice().used
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not fused_bf16.choice().used


def apply(file: Path, **options: Any) -> dict[str, Any]:
    options = {"compiled": None, "precision": "bf16", "bf16_layers": True, **options}
    path = numeric_path.apply_numeric_path(file, CPU, 1, allow_change=False, **options)
    write_json(file, path)
    return path


def on_machine(monkeypatch: pytest.MonkeyPatch, *, used: bool) -> None:
    """Simulate a machine on which the kernels are used, or not."""
    monkeypatch.setattr(numeric_path, "warn_of_rounded_bf16", lambda device: None)
    monkeypatch.setattr(fused_bf16, "choice", lambda: Choice(used, "simulated"))


def test_the_numeric_path_records_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume with other kernels is an error; runs in float32 have no such entry."""
    on_machine(monkeypatch, used=True)
    file = tmp_path / "numeric.json"
    assert apply(file)["bf16_kernels"] is True
    assert apply(file) == read_json(file)
    on_machine(monkeypatch, used=False)
    with pytest.raises(UserError, match="bf16_kernels True → False"):
        apply(file)
    assert "bf16_kernels" not in apply(tmp_path / "fp32.json", precision="fp32")


@pytest.mark.parametrize(
    "options", [{"bf16_layers": False}, {"compiled": False}, {"seed_batch": "1 of 2"}], ids=str
)
def test_runs_that_do_not_use_the_kernels(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other methods, runs that are not compiled, and seed batches use none on any machine."""
    on_machine(monkeypatch, used=True)
    assert apply(tmp_path / "numeric.json", **options)["bf16_kernels"] is False


def test_runs_recorded_before_the_kernels_existed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They resume where the kernels are not used."""
    on_machine(monkeypatch, used=False)
    file = tmp_path / "numeric.json"
    recorded = apply(tmp_path / "new.json")
    del recorded["bf16_kernels"]
    write_json(file, recorded)
    assert apply(file)["bf16_kernels"] is False
    assert read_json(file) == {**recorded, "bf16_kernels": False}
    on_machine(monkeypatch, used=True)
    with pytest.raises(UserError, match="bf16_kernels False → True"):
        apply(file)


def test_failed_compilation_also_disables_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, used=True)
    file = tmp_path / "numeric.json"
    apply(file)
    numeric_path.record_failed_compilation(file)
    assert apply(file)["bf16_kernels"] is False
