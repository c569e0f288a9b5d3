"""Native CPU kernels of layers whose matrix multiplications are in bfloat16.

`dense` computes a whole layer without gradients, for planning: inputs are rounded, joined and
multiplied by tiled weights a block of rows at a time; bias, norm and activation are applied to the
float32 products. `tdmpc2.common.numerics.fused_bf16` decides where they are used.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2 import kernels
from tdmpc2.common.numerics import native_build
from tdmpc2.kernels.blocked import BlockedWeights

SOURCE = Path(__file__).parent / "bf16.cpp"
TILE = 32  # the width of a layer with norm must be a multiple of this


class TiledWeights(BlockedWeights):
    """Tiled bfloat16 copies of the weights that a planning call uses repeatedly.

    Layers receive an attribute `tiled`: `(K, size)`, the weights of K layers in the layout of the
    bfloat16 instructions.
    """

    attribute = "tiled"

    @staticmethod
    def possible() -> bool:
        """Return whether the kernels can be used."""
        return load()

    def _allocate(self, weight: Tensor, rows: int) -> Tensor:
        num, out_dim, in_dim = weight.shape
        size = torch.ops.tdmpc2.bf16_size(out_dim, in_dim)
        return torch.empty(num, size, dtype=torch.bfloat16)

    def _update(self, copy: Tensor, weight: Tensor) -> None:
        torch.ops.tdmpc2.bf16_tile_(copy, weight)


def usable(parts: Sequence[Tensor], tiled: Tensor | None) -> bool:
    """Return whether `dense` can be used: no gradients, and suitable inputs.

    Args:
        parts: `(..., ·)` each; `(..., 1, ·)` if the rows of the others share it.
        tiled: tiled weights; None if there are none.
    """
    if tiled is None or torch.is_grad_enabled() or not torch.compiler.is_compiling():
        return False
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    if all(part.shape[:-1] == lead for part in parts):
        return True
    starts = itertools.accumulate(part.shape[-1] for part in parts)
    one_each = (*lead[:-1], 1)
    return all(start % 2 == 0 for start in list(starts)[:-1]) and all(
        part.shape[:-1] in (lead, one_each) for part in parts
    )


def dense(
    parts: Sequence[Tensor],
    tiled: Tensor,
    bias: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    heads: Tensor | None = None,
    group: int = 0,
    tau: float = 1.0,
) -> Tensor:
    """Return act(γ·norm(x·Wᵀ + bias) + β) of one layer, or of K layers, without gradients.

    x and W are rounded to bfloat16. The result is bfloat16 after Mish, for the next layer, and
    float32 after SimNorm and without norm and activation.

    Args:
        parts: inputs whose concatenation is x `(..., I)`, float32 or bfloat16. One layer accepts
            inputs `(..., 1, ·)` that the rows of the others share; they are multiplied only once.
            K layers accept inputs `(N, ·)`, shared by all, or one `(K, N, I)`.
        tiled: W, from `TiledWeights`.
        bias: `(O,)` or `(K', O)`, bias of the linear map.
        gamma: γ, shape of `bias`; None for a layer without norm and activation.
        beta: β, shape of `bias`; None without γ.
        heads: `(K,)`, indices of the layers to evaluate; all K' if None.
        group: activation: 0 for Mish, 8 for SimNorm.
        tau: temperature of SimNorm.

    Returns:
        `(..., O)`, or `(K, N, O)`.
    """
    params = (tiled, bias, gamma, beta, heads, group, tau)
    return torch.ops.tdmpc2.bf16_dense(list(parts), *params)


def load() -> bool:
    """Load the kernels; compile them first if this machine has not done so before.

    Returns:
        Whether the kernels can be used: if they are built, and oneDNN multiplies tiled bfloat16
        matrices on this CPU.
    """
    return built() and torch.ops.tdmpc2.can_multiply_bf16()


@functools.cache
def built() -> bool:
    """Load the kernels and return whether this succeeded; if not, a warning gives the reason."""
    loaded = kernels.load() and native_build.load(SOURCE)
    if loaded:
        _register()
    return loaded


def _register() -> None:
    """Register the output shape of `bf16_dense`."""

    @torch.library.register_fake("tdmpc2::bf16_dense")
    def _(parts: list[Tensor], tiled: Tensor, bias: Tensor, gamma: Any, *others: Any) -> Tensor:
        _, heads, group, _ = others
        dtype = torch.float32 if gamma is None or group else torch.bfloat16
        largest = max(parts, key=lambda part: part.numel() // part.shape[-1])
        if bias.dim() == 1:
            return bias.new_empty(*largest.shape[:-1], bias.shape[0], dtype=dtype)
        num = tiled.shape[0] if heads is None else heads.shape[0]
        return bias.new_empty(num, largest.shape[-2], bias.shape[1], dtype=dtype)
