"""The numeric path: device, threads and matrix-product settings, recorded and reused."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

from tdmpc2.common.errors import UserError
from tdmpc2.common.files import read_json, write_json


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
    device: torch.device, threads: int | None, renderer: str | None = None
) -> dict[str, Any]:
    """Everything that decides how floating-point results round, for runs to compare.

    Args:
        device: chosen device.
        threads: of the CPU; None for torch's own number.
        renderer: what draws the observations, for runs from pixels.
    """
    path: dict[str, Any] = {
        "device": device.type,
        "torch": torch.__version__,
        "cpu": _cpu_model(),
        "cpu_flags": _cpu_flags_hash(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "matmul_precision": "highest",
        "precision": "fp32",
        "compile": False,
    }
    if device.type == "cuda":
        path["gpu"] = torch.cuda.get_device_name(device)
    if renderer is not None:
        path["renderer"] = renderer
    return path


def apply_numeric_path(
    file: Path,
    device: torch.device,
    threads: int | None,
    *,
    allow_change: bool,
    renderer: str | None = None,
) -> dict[str, Any]:
    """Sets torch up and records how, or takes over what a run recorded before.

    Args:
        file: where the run keeps its numeric path.
        device: chosen device.
        threads: wanted threads; None takes the recorded number.
        allow_change: whether to go on where the recorded path can't be honoured.
        renderer: what draws the observations, for runs from pixels.

    Raises:
        UserError: the recorded path can't be honoured here.
    """
    recorded = read_json(file)
    if recorded is not None and threads is None:
        threads = recorded.get("threads")
    path = numeric_path(device, threads, renderer)
    if recorded is not None and recorded != path:
        names = sorted(k for k in recorded | path if recorded.get(k) != path.get(k))
        changes = ", ".join(f"{k} {recorded.get(k)} → {path.get(k)}" for k in names)
        if not allow_change:
            raise UserError(
                f"{file.parent}: the numeric path has changed ({changes}), so results would not "
                "repeat bit for bit; resume where it was recorded, or say allow_numeric_change=true"
            )
    keep_freed_memory()
    torch.set_num_threads(path["threads"])
    torch.set_float32_matmul_precision(path["matmul_precision"])
    if recorded != path:
        write_json(file, path)
    return path


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


def _cpu_info(field: str) -> str:
    """A field of the first core in `/proc/cpuinfo`; empty on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return ""


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_flags_hash() -> str:
    flags = " ".join(sorted(_cpu_info("flags").split()))
    return hashlib.sha256(flags.encode()).hexdigest()[:12]
