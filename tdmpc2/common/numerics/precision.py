"""Products of networks in bfloat16: by the CPU's or GPU's instructions, or by rounding."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tdmpc2.common.numerics.cpu import cpu_flags

NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
_PRODUCTS = {
    *(F.linear, F.conv2d, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm),
}
_SPLIT = 2.0**16 + 1  # parts the upper 8 of float32's 24 significant bits from the others


def products_in(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """While it is entered, products of tensors are taken in that precision.

    Args:
        precision: `fp32` or `bf16`.
        device: `cpu` or `cuda`.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if device == "cpu" and lacks_bf16():
        return RoundedProducts()
    return torch.autocast(device, torch.bfloat16)


@torch.compiler.assume_constant_result
def lacks_bf16() -> bool:
    """Whether this CPU has no instructions for bfloat16, as far as the system tells."""
    flags = set(cpu_flags())
    return bool(flags) and not flags & NATIVE


class RoundedProducts(TorchFunctionMode):
    """Products as autocast to bfloat16 takes them, on CPUs that would emulate its instructions.

    Those multiply numbers of 8 significant bits and sum in float32. The same comes of float32
    products of operands that are rounded to bfloat16, rounded in turn, as are the gradients; at
    float32's speed, where the emulation takes five times as long.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Rounds operands and outcome of a product; all else is as it is."""
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        rounded = [_Rounded.apply(x) if isinstance(x, Tensor) else x for x in args]
        named = {
            key: _Rounded.apply(x) if isinstance(x, Tensor) else x
            for key, x in (kwargs or {}).items()
        }
        return _Rounded.apply(func(*rounded, **named))


class _Rounded(torch.autograd.Function):
    """To bfloat16 and back to float32; the gradient likewise.

    By arithmetic, since compilers take a conversion there and back for one that does nothing.
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
    """Float32 numbers to the nearest with 8 significant bits, bfloat16's; below 2e33 (Veltkamp)."""
    scaled = x * _SPLIT
    return scaled - (scaled - x)
