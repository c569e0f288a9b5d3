"""The choice between two formulations of the same mathematics: many small kernels, or few large.

A GPU spends as much time between small kernels as in them, so there a step should consist of few,
large ones. On a CPU, small operations fit the caches better, and recorded runs must keep their
bits. Both formulations give the same numbers up to rounding; tests compare them on the CPU by
replacing `wanted`.
"""

from __future__ import annotations

import torch


def wanted(device: torch.device) -> bool:
    """Return whether to use the formulation for GPUs, with few large kernels."""
    return device.type == "cuda"
