"""The rule that decides where layers that multiply in bfloat16 use native kernels."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from tdmpc2.common.numerics.cpu import cpu_field, cpu_flags


class Choice(NamedTuple):
    """Whether the native bfloat16 kernels are used on this machine.

    Attributes:
        used: whether they are used.
        reason: the property of the machine that decides.
    """

    used: bool
    reason: str


def choice() -> Choice:
    """Return whether bfloat16 layers use native kernels on this CPU, and the reason.

    The rule is fixed, so that equal machines make equal choices. The kernels need fast matrix
    multiplications in bfloat16: AMX on Intel CPUs, AVX512-BF16 on AMD CPUs. On Intel CPUs without
    AMX, those with AVX512-BF16 take twice the time of float32.
    """
    flags = cpu_flags()
    if "amx_bf16" not in flags and "avx512_bf16" not in flags:
        return Choice(False, "this CPU has neither AMX nor AVX512-BF16")
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return Choice(False, "torch does not use AVX-512 here (ATEN_CPU_CAPABILITY)")
    if os.environ.get("ONEDNN_MAX_CPU_ISA"):
        return Choice(False, "oneDNN is limited by ONEDNN_MAX_CPU_ISA")
    if "amx_bf16" in flags:
        return Choice(True, "AMX")
    if cpu_field("vendor_id") == "AuthenticAMD":
        return Choice(True, "AVX512-BF16 on AMD")
    return Choice(False, "AVX512-BF16 without AMX is slower than fp32 on Intel CPUs")
