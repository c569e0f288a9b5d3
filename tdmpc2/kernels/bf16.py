"""Native CPU kernels of layers whose matrix multiplications are in bfloat16.

`dense` computes a whole layer without gradients: inputs are rounded, joined and multiplied by tiled
weights a block of rows at a time; bias, norm and activation are applied to the float32 result.
`layer` does so with gradients. `tdmpc2.common.numerics.fused_bf16` decides where they are used.
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
from tdmpc2.kernels.blocked import BlockedWeights, as_layers

SOURCE = Path(__file__).parent / "bf16.cpp"
TILE = 32  # the width of a layer with activation must be a multiple of this
NORM_EPS = 1e-5  # ε of the norm


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
        torch.ops.tdmpc2.bf16_tile_(copy, weight, None)


def usable(x: Tensor) -> bool:
    """Return whether the kernels can be used: in compiled functions, on a CPU."""
    return torch.compiler.is_compiling() and x.device.type == "cpu"


def usable_tiled(parts: Sequence[Tensor], tiled: Tensor | None) -> bool:
    """Return whether `dense` can be used: tiled weights, no gradients, and suitable inputs.

    Args:
        parts: `(..., ·)` each; `(..., 1, ·)` if the rows of the others share it.
        tiled: tiled weights; None if there are none.
    """
    if tiled is None or torch.is_grad_enabled():
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
    activation: str = "none",
    heads: Tensor | None = None,
    tau: float = 1.0,
) -> Tensor:
    """Return act(γ·norm(x·Wᵀ + bias) + β) of one layer, or of K layers, without gradients.

    Without γ there is no norm: act(x·Wᵀ + bias). x and W are rounded to bfloat16. The result is
    bfloat16, for the next layer; after SimNorm and without activation it is float32.

    Args:
        parts: inputs whose concatenation is x `(..., I)`, float32 or bfloat16. One layer accepts
            inputs `(..., 1, ·)` that the rows of the others share; they are multiplied only once.
            K layers accept inputs `(N, ·)`, shared by all, or one `(K, N, I)`.
        tiled: W, from `TiledWeights`.
        bias: `(O,)` or `(K', O)`, bias of the linear map.
        gamma: γ, shape of `bias`; None for a layer without norm.
        beta: β, shape of `bias`; None without γ.
        activation: a key of `kernels.ACTIVATIONS`. A norm needs an activation; Mish and SimNorm
            need a norm.
        heads: `(K,)`, indices of the layers to evaluate; all K' if None.
        tau: temperature of SimNorm.

    Returns:
        `(..., O)`, or `(K, N, O)`.
    """
    params = (tiled, bias, gamma, beta, heads, kernels.ACTIVATIONS[activation], tau)
    return torch.ops.tdmpc2.bf16_dense(list(parts), *params)


def layer(
    parts: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    activation: str = "none",
    heads: Tensor | None = None,
    tau: float = 1.0,
) -> Tensor:
    """Return act(γ·norm(factor·(x·Wᵀ + bias)) + β) as `dense` does, with gradients.

    Products of the backward pass are in bfloat16 too, sums over rows in float32. If `heads` are
    given, W must not require a gradient.

    Args:
        parts: inputs whose concatenation is x, float32 or bfloat16; their leading shapes
            broadcast.
        weight: W, `(O, I)` or `(K', O, I)`.
        bias: `(O,)`, or `(K, O)` of the layers to evaluate.
        gamma: γ, shape of `bias`; None for a layer without norm.
        beta: β, shape of `bias`; None without γ.
        factor: dropout factors, shape of the result; None for no dropout.
        activation: as for `dense`.
        heads: `(K,)`, indices of the layers to evaluate; all K' if None.
        tau: temperature of SimNorm.
    """
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    inputs = [part.expand(*lead, part.shape[-1]) for part in parts]
    tiled = torch.ops.tdmpc2.bf16_tiled(as_layers(weight.detach()), heads)
    if not torch.is_grad_enabled() and factor is None:
        return dense(inputs, tiled, bias, gamma, beta, activation=activation, tau=tau)
    *others, last = inputs
    x, tail = (torch.cat(others, dim=-1), last) if others else (last, None)
    params = (bias, gamma, beta, factor, heads, kernels.ACTIVATIONS[activation], tau)
    return torch.ops.tdmpc2.bf16_layer(x, tail, weight, tiled, *params)[0]


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
    """Register output shapes of all operations, and the gradient of `bf16_layer`."""
    ops = torch.ops.tdmpc2

    @torch.library.register_fake("tdmpc2::bf16_dense")
    def _(parts: list[Tensor], tiled: Tensor, bias: Tensor, gamma: Any, *others: Any) -> Tensor:
        _, heads, act, _ = others
        largest = max(parts, key=lambda part: part.numel() // part.shape[-1])
        num = tiled.shape[0] if heads is None else heads.shape[0]
        return _output(largest, bias, num, act)

    @torch.library.register_fake("tdmpc2::bf16_tiled")
    def _(weight: Tensor, heads: Tensor | None) -> Tensor:
        num = weight.shape[0] if heads is None else heads.shape[0]
        size = ops.bf16_size(*weight.shape[1:])
        return weight.new_empty(num, size, dtype=torch.bfloat16)

    @torch.library.register_fake("tdmpc2::bf16_tiled_columns")
    def _(weight: Tensor, heads: Tensor | None, begin: int, size: int) -> Tensor:
        num = weight.shape[0] if heads is None else heads.shape[0]
        return weight.new_empty(num, ops.bf16_size(size, weight.shape[1]), dtype=torch.bfloat16)

    @torch.library.register_fake("tdmpc2::bf16_layer")
    def _(x: Tensor, tail: Any, weight: Any, tiled: Tensor, bias: Tensor, *others: Any) -> Any:
        gamma, _, _, _, act, _ = others
        y = _output(x, bias, tiled.shape[0], act)
        if gamma is None:
            return y, tiled.new_empty(0), bias.new_empty(0, 2)
        stats = bias.new_empty(y.numel() // y.shape[-1], 2)
        return y, torch.empty_like(y, dtype=torch.bfloat16), stats

    @torch.library.register_fake("tdmpc2::bf16_layer_backward")
    def _(grad: Tensor, x: Tensor, tail: Any, of_x: Any, of_tail: Any, *others: Any) -> Any:
        bias, needs_weight = others[3], others[-1]
        in_dim = x.shape[-1] + (0 if tail is None else tail.shape[-1])
        weight = (*bias.shape, in_dim) if needs_weight else (0,)
        like_bias = (torch.empty_like(bias) for _ in range(3))
        dtail = bias.new_empty(0) if tail is None else _gradient(tail, of_tail)
        return _gradient(x, of_x), dtail, bias.new_empty(weight), *like_bias

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, tail, weight, _, *params, ctx.act, ctx.tau = inputs
        ctx.save_for_backward(x, tail, weight, *params, *output)

    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        x, tail, weight, bias, gamma, beta, factor, heads, *output = ctx.saved_tensors
        needs = ctx.needs_input_grad
        size = x.shape[-1]
        of_x = of_tail = None
        if needs[0]:
            of_x = ops.bf16_tiled_columns(as_layers(weight), heads, 0, size)
        if needs[1]:
            of_tail = ops.bf16_tiled_columns(as_layers(weight), heads, size, tail.shape[-1])
        params = (bias, gamma, beta, factor, ctx.act, ctx.tau, needs[2])
        gradients = ops.bf16_layer_backward(grad, x, tail, of_x, of_tail, *output, *params)
        needed = [*needs[:3], *needs[4:7]]
        dx, dtail, dweight, dbias, dgamma, dbeta = (
            gradient if need else None for gradient, need in zip(gradients, needed, strict=True)
        )
        return dx, dtail, dweight, None, dbias, dgamma, dbeta, None, None, None, None

    torch.library.register_autograd("tdmpc2::bf16_layer", backward, setup_context=setup_context)


def _output(x: Tensor, bias: Tensor, num: int, act: int) -> Tensor:
    """Return an empty result of a layer, or of `num` layers, for inputs like x."""
    last = act in (kernels.ACTIVATIONS["none"], kernels.ACTIVATIONS["simnorm"])
    dtype = torch.float32 if last else torch.bfloat16
    if bias.dim() == 1:
        return bias.new_empty(*x.shape[:-1], bias.shape[0], dtype=dtype)
    return bias.new_empty(num, x.shape[-2], bias.shape[1], dtype=dtype)


def _gradient(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return an empty gradient of x; without entries if it is not computed."""
    if weights is None:
        return x.new_empty(0)
    return torch.empty_like(x, memory_format=torch.contiguous_format)
