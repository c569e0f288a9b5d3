"""bfloat16 matrix multiplications: native instructions, or emulation by rounding operands."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tdmpc2.common.numerics.cpu import cpu_flags

NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one is for ARM
_PRODUCTS = {
    *(F.linear, F.conv2d, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm),
}
_SPLIT = 2.0**16 + 1  # Veltkamp constant: keeps the upper 8 of float32's 24 significant bits


def products_in(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager in which matrix multiplications use the given precision.

    Args:
        precision: `fp32`, `tf32` or `bf16`; TF32 is a setting of torch (`matmul_precision`).
        device: `cpu` or `cuda`.
    """
    if precision != "bf16":
        return contextlib.nullcontext()
    if device == "cpu" and lacks_bf16():
        return RoundedProducts()
    return torch.autocast(device, torch.bfloat16)


def lacks_bf16() -> bool:
    """Return whether the system lists the CPU's instruction sets and bfloat16 is not among them.

    A constant for compiled functions (`Compiler.switch_on`).
    """
    flags = set(cpu_flags())
    return bool(flags) and not flags & NATIVE


class RoundedProducts(TorchFunctionMode):
    """Emulates autocast to bfloat16 on CPUs without bfloat16 instructions.

    Native instructions multiply numbers of 8 significant bits and accumulate in float32. This
    class rounds the operands of float32 matrix multiplications to bfloat16, and rounds the result
    and the gradients too, which gives the same numbers. It runs at the speed of float32; torch's
    own emulation takes five times as long.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Round the operands and the result of matrix multiplications; call others unchanged."""
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        rounded = [_Rounded.apply(x) if isinstance(x, Tensor) else x for x in args]
        named = {
            key: _Rounded.apply(x) if isinstance(x, Tensor) else x
            for key, x in (kwargs or {}).items()
        }
        return _Rounded.apply(func(*rounded, **named))


class _Rounded(torch.autograd.Function):
    """Rounding of a value and its gradient to bfloat16, with a float32 result.

    It uses arithmetic, because compilers remove a conversion to bfloat16 and back.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return round_to_bf16(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return round_to_bf16(grad)


def round_to_bf16(x: Tensor) -> Tensor:
    """Round float32 numbers to 8 significant bits, those of bfloat16, by Veltkamp's splitting.

    With c = x·(2¹⁶ + 1), the result is c − (c − x). Valid for |x| below 2e33.
    """
    scaled = x * _SPLIT
    return scaled - (scaled - x)
