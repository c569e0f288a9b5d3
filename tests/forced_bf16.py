"""The train command with native bfloat16 kernels, whatever the CPU; for subprocesses."""

from __future__ import annotations

from tdmpc2.common.numerics import fused_bf16
from tdmpc2.train import main, usage

__all__ = ["main", "usage"]

fused_bf16.choice = lambda: fused_bf16.Choice(True, "forced by a test")
