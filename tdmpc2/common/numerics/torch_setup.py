"""How torch is set up for a run: its device, and how it multiplies float32 matrices."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from tdmpc2.common.numerics.cpu import cpu_field, cpu_flags
from tdmpc2.common.system.errors import UserError

# For float32 matrix multiplications with results near 1; bfloat16's error is 1000 times larger.
MAX_PRODUCT_ERROR = 1e-5


def choose_device(name: str) -> torch.device:
    """Return the device that the option `device=` names; `auto` is a GPU if there is one.

    Raises:
        UserError: the device is unknown or does not exist on this machine.
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


def matmul_precision(device: torch.device, precision: str = "fp32") -> str:
    """Return the fastest setting of `torch.set_float32_matmul_precision` for a precision.

    That is `high` for `tf32`, and otherwise the fastest one with float32 accuracy.

    The rule is fixed, so that equal machines make equal choices. On AMD CPUs, `highest` uses
    MKL's code path for unknown processors; `medium` uses oneDNN, which is twice as fast. There
    `medium` also computes in float32, except on CPUs with AMX, where it would use bfloat16 tiles.
    The choice is checked against float64. GPUs use `highest`, which disables TF32.

    Args:
        device: device of the networks.
        precision: `fp32`, `tf32` or `bf16`.
    """
    if precision == "tf32":
        return "high"
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
    """Return the largest error of a float32 multiplication of 256 x 256 matrices against float64.

    The factors are normal with standard deviation 1/4, so that the entries of the product have
    standard deviation 1.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) / 4 for _ in range(2))
    return float((a @ b - a.double() @ b.double()).abs().max())


@contextlib.contextmanager
def torch_as_found() -> Iterator[None]:
    """Restore torch's threads, float32 matmul and determinism settings when the block ends."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    deterministic = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def set_up_torch(path: dict[str, Any]) -> None:
    """Configure torch according to a numeric path."""
    keep_freed_memory()
    torch.set_num_threads(path["threads"])
    torch.set_float32_matmul_precision(path["matmul_precision"])
    torch.backends.cudnn.allow_tf32 = path["matmul_precision"] == "high"  # convolutions
    if path.get("deterministic"):
        # cuBLAS reads it at its first use; without it, results on several streams may differ.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Operations without a deterministic version issue a warning.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling uninitialized memory would cost one kernel per tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Prevent glibc from returning large freed blocks to the system after each operation.

    Batched planning frees and allocates megabytes thousands of times per second; by default each
    block is mapped and page-faulted again. This has no effect on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1  # parameters of mallopt(3)
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 1 << 30)
