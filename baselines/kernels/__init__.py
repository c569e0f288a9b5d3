"""Native CPU kernels of the baselines' networks for float32, with gradients.

Results equal those of plain PyTorch up to rounding. A call costs microseconds, so that the
surrounding code needs no compilation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2.common.numerics import native_build
from tdmpc2.kernels import ACTIVATIONS, Blocked

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
LANES = 16  # the width of a layer must be a multiple of this
MIN_ROWS = 32  # of an MLP: with fewer rows, blocking the weights takes longer than it saves
ROW_STEP = 64  # varying numbers of rows are rounded up to this: oneDNN generates code for each


@functools.cache
def load() -> bool:
    """Load the kernels; compile them first if this machine has not done so before.

    Returns:
        Whether the kernels can be used; if not, a warning gives the reason.
    """
    return all(native_build.load(source) for source in SOURCES)


def suits(x: Tensor, *widths: int) -> bool:
    """Return whether the kernels support the input and layers of these widths."""
    float32_on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return float32_on_cpu and all(width % LANES == 0 for width in widths)


def suits_mlp(inputs: Sequence[Tensor], *widths: int) -> bool:
    """Return whether the MLP kernel supports the inputs and hidden layers of these widths.

    Needs enough rows, and a library that supports blocked weights.
    """
    fits = has_enough_rows(inputs) and suits(inputs[-1], *widths)
    return fits and bool(torch.ops.baselines.can_multiply())


def has_enough_rows(inputs: Sequence[Tensor]) -> bool:
    """Return whether inputs `(..., ·)`, whose leading shapes broadcast, have `MIN_ROWS` rows."""
    return lead_of(inputs).numel() >= MIN_ROWS


def lead_of(inputs: Sequence[Tensor]) -> torch.Size:
    """Return the leading shape of inputs `(..., ·)`, broadcast."""
    return torch.broadcast_shapes(*(x.shape[:-1] for x in inputs))


class MLPFunction(torch.autograd.Function):
    """An MLP for rows `(N, I)` with the native kernel; see `mlp`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: int, eps: float, layers: int, *params: Any) -> Tensor:
        """Return outputs `(N, O)`.

        Args:
            ctx: autograd context.
            x: `(N, I)`.
            act: activation code, a value of `tdmpc2.kernels.ACTIVATIONS`.
            eps: ε of the LayerNorm.
            layers: number of linear layers.
            *params: weights of all layers, then biases, then scale and shift of the LayerNorm if
                there is one.
        """
        weights, biases, norm = _split_params(params, layers)
        y, *kept = torch.ops.baselines.mlp_forward(x, weights, biases, act, *norm, eps, True)
        ctx.save_for_backward(x, *params, *kept)
        ctx.act, ctx.layers, ctx.num_params = act, layers, len(params)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of x and of the parameters, if they are needed."""
        x, *saved = ctx.saved_tensors
        params, kept = saved[: ctx.num_params], saved[ctx.num_params :]
        weights, _, norm = _split_params(params, ctx.layers)
        hidden = ctx.layers - 1
        needs = ctx.needs_input_grad
        if not any(needs[4:]):
            dx = _input_gradient(x, grad, weights, kept, ctx.act, norm)
            return dx, *[None] * (len(needs) - 1)
        result = torch.ops.baselines.mlp_backward(grad, weights, kept, ctx.act, *norm, needs[0])
        dx, hidden_grads, others = result[0], result[1 : 1 + hidden], result[1 + hidden :]
        inputs, output_grads = [x, *kept[:hidden]], [*hidden_grads, grad]
        bias_grads = [*others[:hidden], grad.sum(0)]
        weight_grads = [dy.t() @ into for dy, into in zip(output_grads, inputs, strict=True)]
        param_grads = [*weight_grads, *bias_grads, *others[hidden:]]
        return dx if needs[0] else None, None, None, None, *param_grads


def _input_gradient(
    x: Tensor,
    grad: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
    act: int,
    norm: list[Any],
) -> Tensor:
    """Return the gradient of the input `(N, I)` only, computed for rows with nonzero `grad`.

    With the minimum of two critics, each row has a gradient in one critic only, so that about half
    of the rows can be skipped.
    """
    nonzero = grad.ne(0).any(dim=1)
    num = -(-int(nonzero.sum()) // ROW_STEP) * ROW_STEP
    if num >= len(x):
        return torch.ops.baselines.mlp_backward(grad, weights, kept, act, *norm, True)[0]
    dx = torch.zeros_like(x)
    if num > 0:
        rows = nonzero.argsort(descending=True, stable=True)[:num]
        kept = [values[rows] for values in kept]
        dx[rows] = torch.ops.baselines.mlp_backward(grad[rows], weights, kept, act, *norm, True)[0]
    return dx


def _split_params(
    params: Sequence[Any], layers: int
) -> tuple[list[Tensor], list[Tensor], list[Any]]:
    """Return weights, biases, and [scale, shift] of the norm or [None, None]."""
    norm = list(params[2 * layers :]) or [None, None]
    return list(params[:layers]), list(params[layers : 2 * layers]), norm


class NormSiLU(torch.autograd.Function):
    """SiLU(LayerNorm(x)) for rows `(N, D)` with the native kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        """Return activations `(N, D)`.

        Args:
            ctx: autograd context.
            x: `(N, D)`.
            scale: `(D,)`, scale of the LayerNorm.
            shift: `(D,)`, shift of the LayerNorm.
            eps: ε of the LayerNorm.
        """
        y, stats = torch.ops.baselines.norm_silu(x, scale, shift, eps)
        ctx.save_for_backward(x, stats, scale, shift)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of x, scale and shift."""
        return *torch.ops.baselines.norm_silu_backward(grad, *ctx.saved_tensors), None


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    norm: tuple[Tensor, Tensor, float] | None,
    blocked: Sequence[Blocked] | None = None,
) -> Tensor:
    """Apply an MLP to inputs `(..., I)` and return outputs `(..., O)`.

    Args:
        x: `(..., I)`.
        weights: `(O_l, I_l)` of each layer l.
        biases: `(O_l,)` of each layer.
        activation: activation of the hidden layers, `relu` or `elu`.
        norm: scale, shift and ε of a LayerNorm, which is used with a tanh instead of the first
            activation; None without.
        blocked: blocked weights from `tdmpc2.kernels.blocked.BlockedWeights`; None without, or if
            gradients are needed.
    """
    rows, act = x.reshape(-1, x.shape[-1]), ACTIVATIONS[activation]
    *scale_shift, eps = (None, None, 0.0) if norm is None else norm
    if blocked is not None and rows.shape[0] % blocked[0].block == 0:
        matrices = [p.weight[0] for p in blocked]
        args = (rows, matrices, list(biases), act, *scale_shift, eps, blocked[0].block)
        y = torch.ops.baselines.mlp(*args)
    elif torch.is_grad_enabled():
        norm_params = () if norm is None else scale_shift
        y = MLPFunction.apply(rows, act, eps, len(weights), *weights, *biases, *norm_params)
    else:
        args = (rows, list(weights), list(biases), act, *scale_shift, eps, False)
        y = torch.ops.baselines.mlp_forward(*args)[0]
    return y.view(*x.shape[:-1], -1)


def norm_silu(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Return SiLU(LayerNorm(x)), `(..., D)`.

    Args:
        x: `(..., D)`.
        scale: `(D,)`, scale of the LayerNorm.
        shift: `(D,)`, shift of the LayerNorm.
        eps: ε of the LayerNorm.
    """
    y = NormSiLU.apply(x.reshape(-1, x.shape[-1]), scale, shift, eps)
    return y.view(x.shape)
