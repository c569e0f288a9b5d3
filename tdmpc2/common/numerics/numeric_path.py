"""The numeric path of a run: all settings that decide how floating-point results are rounded.

These are device, torch version, CPU, threads, matmul precision, compilation, seed batch and data
parallelism. They are chosen by a fixed rule when a run starts, recorded in `numeric.json` of the
run directory, and reused on resume. Two runs with equal numeric paths give equal bits; a resume
under a different numeric path is an error unless `allow_numeric_change=true`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from tdmpc2.common.numerics import fused_bf16, native_build
from tdmpc2.common.numerics.compile import Compiler, reason
from tdmpc2.common.numerics.cpu import cpu_flags_hash, cpu_model, instruction_sets
from tdmpc2.common.numerics.precision import lacks_bf16
from tdmpc2.common.numerics.torch_setup import matmul_precision, set_up_torch
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

# Environment variables that change the code paths of math libraries on the same CPU.
LIMITS = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"),
)


def require_precision(device: torch.device, precision: str) -> None:
    """Check that a device supports a precision.

    Raises:
        UserError: it does not.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(
            "precision=tf32: only NVIDIA GPUs have TF32 arithmetic, and this run uses "
            f"device={device}; use precision=fp32"
        )


def usable_precision(device: torch.device, precision: str) -> str:
    """Return the precision in which a device uses a trained model: TF32 is float32 on a CPU."""
    return "fp32" if precision == "tf32" and device.type != "cuda" else precision


def numeric_path(
    device: torch.device,
    threads: int | None,
    *,
    compiled: bool | None = False,
    precision: str = "fp32",
    bf16_layers: bool = False,
    renderer: str | None = None,
    seed_batch: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Return all settings that decide how floating-point results are rounded.

    Args:
        device: device of the networks.
        threads: number of CPU threads; None for torch's default.
        compiled: whether functions are compiled; None: if compilation works.
        precision: precision of the networks' matrix multiplications, `fp32`, `tf32` or `bf16`.
        bf16_layers: whether the layers have native bf16 kernels, which `fused_bf16` may choose.
        renderer: rendering backend, for runs with pixel observations.
        seed_batch: position of the run in its seed batch, e.g. `1 of 3`; None without one.
        split: division of batches into micro-batches and over processes; None if undivided.

    Raises:
        UserError: `compiled` is True, but compilation does not work on this machine; or the
            precision needs a GPU.
    """
    require_precision(device, precision)
    if precision == "bf16":
        warn_of_rounded_bf16(device)
    path: dict[str, Any] = {
        "device": device.type,
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "instruction_sets": instruction_sets(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "matmul_precision": matmul_precision(device, precision),
        "precision": precision,
        "compile": False,
    }
    if compiled is not False:
        path["compile"] = compiler_version(device)
        if path["compile"] is False and compiled:
            raise UserError(
                "compile=true: torch.compile does not work here (see the warning above); use "
                "compile=false"
            )
    if precision == "bf16":
        suits = bf16_layers and seed_batch is None and device.type == "cpu" and path["compile"]
        path["bf16_kernels"] = bool(suits) and fused_bf16.choice().used
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


def _change(key: str, before: Any, now: Any) -> str:
    """Describe a change of the numeric path; of the instruction sets, only those that differ."""
    if key == "instruction_sets" and before and now:
        lost = [f"-{name}" for name in before.split() if name not in now.split()]
        new = [f"+{name}" for name in now.split() if name not in before.split()]
        return f"{key} {' '.join(lost + new)}"
    return f"{key} {before} → {now}"


def warn_of_rounded_bf16(device: torch.device) -> None:
    """Warn that bfloat16 is not faster on a CPU without bfloat16 instructions."""
    if device.type == "cpu" and lacks_bf16():
        warnings.warn(
            "precision=bf16: this CPU has no bf16 instructions; matrix multiplications use fp32 "
            "arithmetic on values rounded to bf16, which is no faster than fp32",
            RuntimeWarning,
            stacklevel=2,
        )


def compiler_version(device: torch.device) -> str | Literal[False]:
    """Return the version of the compiler behind `torch.compile`, after a test compilation.

    If the test fails, return False and issue a warning.
    """
    compiler = Compiler(device, whole_steps=True)  # with the options of runs, but no CUDA graph
    compiler.switch_on()
    try:
        compiler.compile(torch.sin)(torch.ones(8, device=device))
    except Exception as error:  # many types, none of them documented
        missing = device.type == "cpu" and native_build.compiler() is None
        advice = "install a C++ compiler (g++), or use" if missing else "use"
        warnings.warn(
            f"torch.compile does not work here ({reason(error)}); continuing without it, more "
            f"slowly; {advice} compile=false to avoid this warning",
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
    bf16_layers: bool = False,
    renderer: str | None = None,
    seed_batch: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Configure torch for a run, by its recorded numeric path if there is one; nothing is written.

    Args:
        file: `numeric.json` of the run directory.
        device: device of the networks.
        threads: number of CPU threads; None: as recorded, or torch's default.
        allow_change: whether to continue if the numeric path differs from the recorded one.
        compiled: whether functions are compiled; None: as recorded, or if compilation works.
        precision: precision of the networks' matrix multiplications, `fp32`, `tf32` or `bf16`.
        bf16_layers: whether the layers have native bf16 kernels, which `fused_bf16` may choose.
        renderer: rendering backend, for runs with pixel observations.
        seed_batch: position of the run in its seed batch; None without one.
        split: division of batches into micro-batches and over processes; None if undivided.

    Returns:
        The numeric path in use, which the caller records when the run starts.

    Raises:
        UserError: the numeric path differs from the recorded one, and `allow_change` is False.
    """
    recorded = read_json(file, dict[str, Any])
    if recorded is not None:
        if "pack" in recorded:  # name of `seed_batch` up to version 0.4.0
            recorded["seed_batch"] = recorded.pop("pack")
        # Up to version 0.4.0 a hash of all flags, so that nothing is known if one has changed.
        if recorded.get("cpu_flags") == cpu_flags_hash():
            del recorded["cpu_flags"]
            recorded["instruction_sets"] = instruction_sets()
        if precision == "bf16":  # no such kernels up to version 0.4.0
            recorded.setdefault("bf16_kernels", False)
        threads = recorded.get("threads") if threads is None else threads
        compiled = bool(recorded.get("compile")) if compiled is None else compiled
    path = numeric_path(
        device,
        threads,
        compiled=compiled,
        precision=precision,
        bf16_layers=bf16_layers,
        renderer=renderer,
        seed_batch=seed_batch,
        split=split,
    )
    if recorded is not None and path["compile"] and "native_kernels" in recorded:
        path["native_kernels"] = recorded["native_kernels"]  # checked when they are loaded
    if recorded is not None and recorded != path:
        names = sorted(k for k in recorded | path if recorded.get(k) != path.get(k))
        changes = ", ".join(_change(k, recorded.get(k), path.get(k)) for k in names)
        if not allow_change:
            raise UserError(_refusal(file, changes))
    set_up_torch(path)
    return path


def record_native_kernels(file: Path, used: bool, *, allow_change: bool) -> None:
    """Record whether the layers of a run use native kernels, which is known once they are loaded.

    Args:
        file: `numeric.json` of the run directory.
        used: whether they do.
        allow_change: whether to continue if this differs from what is recorded.

    Raises:
        UserError: it differs, and `allow_change` is False.
    """
    path = read_json(file, dict[str, Any]) or {}
    before = path.get("native_kernels")
    if before == used:
        return
    if before is not None and not allow_change:
        raise UserError(_refusal(file, f"native_kernels {before} → {used}"))
    write_json(file, {**path, "native_kernels": used})


def _refusal(file: Path, changes: str) -> str:
    return (
        f"{file.parent}: the numeric path has changed ({changes}), so results would not be "
        "bit-exact; resume with the recorded settings, or use allow_numeric_change=true"
    )


def record_failed_compilation(file: Path) -> None:
    """Record in a numeric path that the run continues without compilation."""
    path = {**(read_json(file, dict[str, Any]) or {}), "compile": False}
    path.pop("native_kernels", None)
    if "bf16_kernels" in path:
        path["bf16_kernels"] = False
    write_json(file, path)
