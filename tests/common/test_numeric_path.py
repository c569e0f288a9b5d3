"""The numeric path: chosen by a fixed rule, recorded, and reused on resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.common.numerics import cpu as cpu_module
from tdmpc2.common.numerics import numeric_path as path_module
from tdmpc2.common.numerics import precision, torch_setup
from tdmpc2.common.numerics.numeric_path import apply_numeric_path, numeric_path
from tdmpc2.common.numerics.torch_setup import choose_device
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def apply(
    file: Path, threads: int | None = None, *, allow: bool = False, **how: Any
) -> dict[str, Any]:
    """Apply and record a numeric path, as the start of a run does."""
    path = apply_numeric_path(file, CPU, threads, allow_change=allow, **how)
    write_json(file, path)
    return path


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


def test_tf32_is_for_gpus() -> None:
    assert torch_setup.matmul_precision(torch.device("cuda"), "tf32") == "high"
    with pytest.raises(UserError, match="precision=tf32: only NVIDIA GPUs have TF32"):
        numeric_path(CPU, 1, precision="tf32")


def test_recorded_and_applied(tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    path = apply(file, 2)
    assert read_json(file) == path
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert apply(file)["threads"] == 2  # no option: the recorded number
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


@pytest.mark.parametrize("key", ["torch", "cpu", "cpu_capability", "device", "gpu"])
def test_another_machine_is_another_path(key: str, tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    write_json(file, {**numeric_path(CPU, 1), key: "another"})
    with pytest.raises(UserError, match=f"{key} another → "):
        apply(file)


def test_a_resume_without_the_native_kernels_is_refused(tmp_path: Path) -> None:
    """For example because the compiler has been removed since."""
    file = tmp_path / "numeric.json"
    how = {"compiled": True}
    apply(file, 1, **how)
    path_module.record_native_kernels(file, True, allow_change=False)
    assert apply(file, 1, **how)["native_kernels"] is True
    path_module.record_native_kernels(file, True, allow_change=False)
    with pytest.raises(UserError, match="native_kernels True → False"):
        path_module.record_native_kernels(file, False, allow_change=False)
    assert read_json(file)["native_kernels"] is True
    path_module.record_native_kernels(file, False, allow_change=True)
    assert read_json(file)["native_kernels"] is False
    path_module.record_failed_compilation(file)
    assert "native_kernels" not in read_json(file)


def test_only_instruction_sets_for_arithmetic_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new kernel or microcode changes flags of mitigations; another CPU, those of arithmetic."""
    file = tmp_path / "numeric.json"
    flags = ("avx", "avx2", "fma", "fpu", "md_clear", "sse2")
    monkeypatch.setattr(cpu_module, "cpu_flags", lambda: flags)
    path = apply(file)
    assert path["instruction_sets"] == "avx avx2 fma sse2"
    monkeypatch.setattr(cpu_module, "cpu_flags", lambda: (*flags[:4], "sse2", "ssbd"))
    assert apply(file) == path
    monkeypatch.setattr(cpu_module, "cpu_flags", lambda: ("avx", "avx512f", "fma", "sse2"))
    with pytest.raises(UserError, match=r"instruction_sets -avx2 \+avx512f\)"):
        apply(file)


def test_a_numeric_path_of_0_4_0_has_a_hash_of_all_flags(tmp_path: Path) -> None:
    file = tmp_path / "numeric.json"
    path = numeric_path(CPU, 1)
    old = {k: v for k, v in path.items() if k != "instruction_sets"}
    write_json(file, {**old, "cpu_flags": cpu_module.cpu_flags_hash()})
    assert apply(file) == path
    assert read_json(file) == path
    write_json(file, {**old, "cpu_flags": "another"})
    with pytest.raises(UserError, match="cpu_flags another → None"):
        apply(file)


# --- matmul precision and compilation --------------------------------------------------------


def cpu(monkeypatch: pytest.MonkeyPatch, vendor: str, flags: list[str]) -> None:
    """Simulate another CPU."""
    monkeypatch.setattr(torch_setup, "cpu_field", lambda name: {"vendor_id": vendor}[name])
    for module in (torch_setup, precision):
        monkeypatch.setattr(module, "cpu_flags", lambda: flags)


@pytest.mark.parametrize(
    ("vendor", "flags", "setting"),
    [
        ("GenuineIntel", ["avx512f"], "highest"),
        ("AuthenticAMD", ["avx512f", "avx512_bf16"], "medium"),
        ("AuthenticAMD", ["avx512f", "amx_bf16"], "highest"),  # `medium` would use bfloat16 tiles
        ("", [], "highest"),
    ],
)
def test_products_follow_a_rule_on_the_cpu(
    vendor: str, flags: list[str], setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_float32_matmul_precision()
    cpu(monkeypatch, vendor, flags)
    monkeypatch.setattr(torch_setup, "product_error", lambda: 1e-6)
    assert torch_setup.matmul_precision(CPU) == setting
    assert torch_setup.matmul_precision(torch.device("cuda")) == "highest"
    assert torch.get_float32_matmul_precision() == before


def test_products_that_are_not_float32_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, "AuthenticAMD", [])
    monkeypatch.setattr(torch_setup, "product_error", lambda: 2e-5)
    assert torch_setup.matmul_precision(CPU) == "highest"


def test_the_measure_tells_float32_from_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_setup.product_error() < torch_setup.MAX_PRODUCT_ERROR
    product = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert torch_setup.product_error() > 100 * torch_setup.MAX_PRODUCT_ERROR


def compile_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", fail)


@pytest.mark.parametrize(
    ("program", "advice"), [("none", r"install a C\+\+ compiler \(g\+\+\), or use"), ("sh", "use")]
)
def test_without_a_working_compiler_runs_go_on_plainly(
    program: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_fails(monkeypatch)
    monkeypatch.setenv("CXX", program)
    file = tmp_path / "numeric.json"
    said = rf"does not work here \(no compiler\).* slowly; {advice} compile=false"
    with pytest.warns(RuntimeWarning, match=said):
        path = apply(file, 1, compiled=None)
    assert path["compile"] is False
    assert apply(file, 1, compiled=None) == path


def test_asking_for_what_does_not_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_fails(monkeypatch)
    file = tmp_path / "numeric.json"
    with pytest.warns(RuntimeWarning), pytest.raises(UserError, match="compile=true"):
        apply(file, 1, compiled=True)
    assert not file.exists()


def test_limits_on_instructions_are_part_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change rounding on the same CPU, so a resume with other limits is an error."""
    for variable in path_module.LIMITS:
        monkeypatch.delenv(variable, raising=False)
    assert "cpu_limits" not in apply(tmp_path / "numeric.json")
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    with pytest.raises(UserError, match="cpu_limits None → MKL_ENABLE_INSTRUCTIONS=AVX2"):
        apply(tmp_path / "numeric.json")
    allowed = apply(tmp_path / "numeric.json", allow=True)
    assert allowed["cpu_limits"] == "MKL_ENABLE_INSTRUCTIONS=AVX2"


def test_compilation_is_part_of_the_path_and_kept(tmp_path: Path) -> None:
    """A resumed run uses the recorded setting, including a failure."""
    file = tmp_path / "numeric.json"
    path = apply(file, 1, compiled=None)
    assert "g++" in path["compile"] or path["compile"] == "unknown"
    assert apply(file, 1, compiled=None) == path
    with pytest.raises(UserError, match=r"compile .* → False"):
        apply(file, 1, compiled=False)
    path_module.record_failed_compilation(file)
    assert apply(file, 1, compiled=None)["compile"] is False


def test_bf16_without_instructions_for_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, "GenuineIntel", ["avx512f"])
    with pytest.warns(RuntimeWarning, match="precision=bf16.*no faster"):
        path_module.warn_of_rounded_bf16(CPU)
    for flags in (["avx512_bf16"], ["amx_bf16"], []):
        cpu(monkeypatch, "GenuineIntel", flags)
        path_module.warn_of_rounded_bf16(CPU)
