"""The numeric path: device, threads and matrix-product settings, recorded and reused."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from tdmpc2.common.numerics import native_build
from tdmpc2.common.numerics.compile import use_own_cache
from tdmpc2.common.numerics.cpu import cpu_field, cpu_flags, cpu_flags_hash, cpu_model
from tdmpc2.common.numerics.precision import lacks_bf16
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

# Environment variables that change how libraries compute on the same CPU.
LIMITS = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"),
)
MAX_PRODUCT_ERROR = 1e-5  # of float32 products near 1; bfloat16's is 1000 times that


def choose_device(name: str) -> torch.device:
    """The device of `device=`; `auto` takes a GPU where there is one.

    Raises:
        UserError: a device that doesn't exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: unknown device (valid: auto, cpu, cuda, cuda:1)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: no such CUDA device is available here; use device=cpu")
    return device


def numeric_path(
    device: torch.device,
    threads: int | None,
    *,
    compiled: bool | None = False,
    precision: str = "fp32",
    renderer: str | None = None,
    seed_batch: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Everything that decides how floating-point results round, for runs to compare.

    Args:
        device: chosen device.
        threads: of the CPU; None for torch's own number.
        compiled: whether functions are compiled; None: where that works.
        precision: of the networks' products, `fp32` or `bf16`.
        renderer: what draws the observations, for runs from pixels.
        seed_batch: the run's place among several that are computed as one batch.
        split: how batches are divided among processes and in time.

    Raises:
        UserError: compilation was asked for, and does not work here.
    """
    if precision == "bf16":
        warn_of_rounded_bf16(device)
    path: dict[str, Any] = {
        "device": device.type,
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags_hash(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "matmul_precision": matmul_precision(device),
        "precision": precision,
        "compile": False,
    }
    if compiled is not False:
        path["compile"] = compiler_version(device)
        if path["compile"] is False and compiled:
            raise UserError("compile=true: torch.compile does not work here; see the warning above")
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    if limits:
        path["cpu_limits"] = " ".join(limits)
    if device.type == "cuda":
        path["gpu"] = torch.cuda.get_device_name(device)
        path["deterministic"] = True
    if renderer is not None:
        path["renderer"] = renderer
    if seed_batch is not None:
        path["seed_batch"] = seed_batch
    if split is not None:
        path["split"] = split
    return path


def matmul_precision(device: torch.device) -> str:
    """The setting of `torch.set_float32_matmul_precision` that is fastest and still float32.

    A fixed rule, so that equal machines choose alike. On AMD's CPUs `highest` takes MKL's path
    for unknown processors; `medium` takes oneDNN, twice as fast. There it means float32 all the
    same, unless the CPU has AMX, whose bfloat16 tiles it would use. What is chosen is checked
    against float64. GPUs keep `highest`, which leaves TF32 off.
    """
    amd = cpu_field("vendor_id") == "AuthenticAMD"
    if device.type != "cpu" or not amd or any(flag.startswith("amx") for flag in cpu_flags()):
        return "highest"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        return "medium" if product_error() <= MAX_PRODUCT_ERROR else "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def product_error() -> float:
    """Largest error of a float32 product of 256 x 256 matrices against float64, of values near 1.

    The factors are normal with a standard deviation that gives products one of 1.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) / 4 for _ in range(2))
    return float((a @ b - a.double() @ b.double()).abs().max())


def warn_of_rounded_bf16(device: torch.device) -> None:
    """Says so where bfloat16 gains nothing: on a CPU without instructions for it."""
    if device.type == "cpu" and lacks_bf16():
        warnings.warn(
            "precision=bf16: this CPU has no instructions for it; products are taken in fp32 of "
            "numbers rounded to bf16, which is no faster than fp32",
            RuntimeWarning,
            stacklevel=2,
        )


def compiler_version(device: torch.device) -> str | Literal[False]:
    """The compiler behind `torch.compile`, after a try; False, with a warning, if it fails."""
    use_own_cache()
    try:
        torch.compile(torch.sin)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds, none of them documented
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"torch.compile does not work here ({reason}); going on without it, more slowly. "
            "A C++ compiler (g++) mends it, compile=false leaves it out",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return native_build.compiler_version() or "unknown"


def apply_numeric_path(
    file: Path,
    device: torch.device,
    threads: int | None,
    *,
    allow_change: bool,
    compiled: bool | None = False,
    precision: str = "fp32",
    renderer: str | None = None,
    seed_batch: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Sets torch up and records how, or takes over what a run recorded before.

    Args:
        file: where the run keeps its numeric path.
        device: chosen device.
        threads: wanted threads; None takes the recorded number.
        allow_change: whether to go on where the recorded path can't be honored.
        compiled: whether functions are compiled; None: as recorded, or where that works.
        precision: of the networks' products.
        renderer: what draws the observations, for runs from pixels.
        seed_batch: the run's place among several that are computed as one batch.
        split: how batches are divided among processes and in time.

    Raises:
        UserError: the recorded path can't be honored here.
    """
    recorded = read_json(file)
    if recorded is not None:
        if "pack" in recorded:  # its name up to version 0.4.0
            recorded["seed_batch"] = recorded.pop("pack")
        threads = recorded.get("threads") if threads is None else threads
        compiled = bool(recorded.get("compile")) if compiled is None else compiled
    path = numeric_path(
        device,
        threads,
        compiled=compiled,
        precision=precision,
        renderer=renderer,
        seed_batch=seed_batch,
        split=split,
    )
    if recorded is not None and recorded != path:
        names = sorted(k for k in recorded | path if recorded.get(k) != path.get(k))
        changes = ", ".join(f"{k} {recorded.get(k)} → {path.get(k)}" for k in names)
        if not allow_change:
            raise UserError(
                f"{file.parent}: the numeric path has changed ({changes}), so results would not "
                "repeat bit for bit; resume where it was recorded, or say allow_numeric_change=true"
            )
    set_up_torch(path)
    if recorded != path:
        write_json(file, path)
    return path


@contextlib.contextmanager
def torch_as_found() -> Iterator[None]:
    """Leaves torch's threads, float32 matmul setting and choice of algorithms as they were."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def set_up_torch(path: dict[str, Any]) -> None:
    """Makes torch compute as a numeric path says."""
    keep_freed_memory()
    torch.set_num_threads(path["threads"])
    torch.set_float32_matmul_precision(path["matmul_precision"])
    if path.get("deterministic"):
        # Read by cuBLAS when it is first used; without it, products on several streams may differ.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # An operation that has no deterministic form warns.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory would cost a kernel for each tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def record_failed_compilation(file: Path) -> None:
    """Says in a recorded numeric path that the run goes on without compilation."""
    write_json(file, {**(read_json(file) or {}), "compile": False})


def keep_freed_memory() -> None:
    """Keeps glibc from returning large freed blocks to the system after each operation.

    Batched planning frees and takes megabytes thousands of times per second; by default
    each is mapped and page-faulted anew. Without effect on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1  # names of mallopt(3)
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 1 << 30)
