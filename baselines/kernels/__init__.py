"""Native networks of the baselines for float32 on a CPU, as functions with gradients.

They stand in for plain PyTorch once `load` has built them, and equal it to round-off. Calling
them costs microseconds, so that nothing around them needs compiling.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2.common.numerics import native_build
from tdmpc2.kernels import Blocked

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
LANES = 16  # rows must be a multiple of this long
MIN_ROWS = 32  # of an MLP: for fewer its weights are not worth laying out
ROW_STEP = 64  # to which a varying number of rows is rounded up: oneDNN builds code for each
ACTIVATIONS = {"relu": 1, "elu": 2}


@functools.cache
def load() -> bool:
    """Builds the kernels if this machine has not yet, and loads them.

    Returns:
        Whether they can be used; if not, a warning says why.
    """
    return all(native_build.load(source) for source in SOURCES)


def suits(x: Tensor, *widths: int) -> bool:
    """Whether layers of these widths can take such rows."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and all(width % LANES == 0 for width in widths)


def suits_mlp(x: Tensor, *widths: int) -> bool:
    """Whether an MLP of these widths takes such rows, with the library that torch multiplies with.

    There must be enough of them to lay its weights out for.
    """
    enough = x.numel() >= MIN_ROWS * x.shape[-1]
    return enough and suits(x, *widths) and bool(torch.ops.baselines.can_multiply())


class MLPFunction(torch.autograd.Function):
    """A whole MLP for rows `(N, I)`: weights, then biases, then scale and shift of a norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: int, eps: float, layers: int, *params: Any) -> Tensor:
        """Outputs `(N, O)`."""
        weights, biases, norm = _parted(params, layers)
        y, *kept = torch.ops.baselines.mlp_forward(x, weights, biases, act, *norm, eps, True)
        ctx.save_for_backward(x, *params, *kept)
        ctx.act, ctx.layers, ctx.num_params = act, layers, len(params)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows and parameters, as far as they are needed."""
        x, *saved = ctx.saved_tensors
        params, kept = saved[: ctx.num_params], saved[ctx.num_params :]
        weights, _, norm = _parted(params, ctx.layers)
        hidden = ctx.layers - 1
        needs = ctx.needs_input_grad
        if not any(needs[4:]):
            return _to_rows(x, grad, weights, kept, ctx.act, norm), *[None] * (len(needs) - 1)
        outcome = torch.ops.baselines.mlp_backward(grad, weights, kept, ctx.act, *norm, needs[0])
        to_x, products, others = outcome[0], outcome[1 : 1 + hidden], outcome[1 + hidden :]
        inputs, outputs = [x, *kept[:hidden]], [*products, grad]
        biases = [*others[:hidden], grad.sum(0)]
        of_weights = [out.t() @ into for out, into in zip(outputs, inputs, strict=True)]
        found = [*of_weights, *biases, *others[hidden:]]
        return to_x if needs[0] else None, None, None, None, *found


def _to_rows(
    x: Tensor,
    grad: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
    act: int,
    norm: list[Any],
) -> Tensor:
    """Gradient of an MLP's rows alone, through those of them that any reaches.

    The lesser of two critics' values sends none to the other: half of all rows may stay out.
    """
    reached = grad.ne(0).any(dim=1)
    num = -(-int(reached.sum()) // ROW_STEP) * ROW_STEP
    if num >= len(x):
        return torch.ops.baselines.mlp_backward(grad, weights, kept, act, *norm, True)[0]
    to_x = torch.zeros_like(x)
    if num > 0:
        rows = reached.argsort(descending=True, stable=True)[:num]
        kept = [values[rows] for values in kept]
        part = torch.ops.baselines.mlp_backward(grad[rows], weights, kept, act, *norm, True)[0]
        to_x[rows] = part
    return to_x


def _parted(params: Sequence[Any], layers: int) -> tuple[list[Tensor], list[Tensor], list[Any]]:
    """Weights, biases, and scale and shift or two Nones."""
    norm = list(params[2 * layers :]) or [None, None]
    return list(params[:layers]), list(params[layers : 2 * layers]), norm


class NormSiLU(torch.autograd.Function):
    """SiLU(LayerNorm(x)) for rows `(N, D)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        """Activations `(N, D)`."""
        y, stats = torch.ops.baselines.norm_silu(x, scale, shift, eps)
        ctx.save_for_backward(x, stats, scale, shift)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows, scale and shift."""
        return *torch.ops.baselines.norm_silu_backward(grad, *ctx.saved_tensors), None


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    norm: tuple[Tensor, Tensor, float] | None,
    blocked: Sequence[Blocked] | None = None,
) -> Tensor:
    """A whole MLP of `(..., I)`.

    Args:
        x: rows.
        weights: `(O, I)` of each layer.
        biases: `(O,)` of each layer.
        activation: of the hidden layers, `relu` or `elu`.
        norm: scale, shift and ε of a LayerNorm, which with a tanh takes the place of the first
            activation.
        blocked: the weights as `tdmpc2.kernels.blocked.BlockedWeights` has laid them out; None
            without, and where gradients are wanted.
    """
    rows, act = x.reshape(-1, x.shape[-1]), ACTIVATIONS[activation]
    *given, eps = (None, None, 0.0) if norm is None else norm
    if blocked is not None and rows.shape[0] % blocked[0].block == 0:
        matrices = [p.weight[0] for p in blocked]
        args = (rows, matrices, list(biases), act, *given, eps, blocked[0].block)
        y = torch.ops.baselines.mlp(*args)
    elif torch.is_grad_enabled():
        norms = () if norm is None else given
        y = MLPFunction.apply(rows, act, eps, len(weights), *weights, *biases, *norms)
    else:
        args = (rows, list(weights), list(biases), act, *given, eps, False)
        y = torch.ops.baselines.mlp_forward(*args)[0]
    return y.view(*x.shape[:-1], -1)


def norm_silu(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """SiLU(LayerNorm(x)) of `(..., D)`."""
    y = NormSiLU.apply(x.reshape(-1, x.shape[-1]), scale, shift, eps)
    return y.view(x.shape)
