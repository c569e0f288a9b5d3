"""A native kernel for what limits the networks on a CPU beside their products: `norm_act`.

Bias, dropout, LayerNorm and Mish or SimNorm of a layer in one pass over each row, and their
gradients in another; `torch.compile` makes five and more of them. Part of compiled functions
only, so that `compile=false` is plain PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tdmpc2.common.numerics import native_build

SOURCE = Path(__file__).parent / "norm_act.cpp"
GROUP = 8  # the only group size of SimNorm that the kernel knows
LANES = 16  # rows must be a multiple of this long
_vectorised = False


class Blocked(NamedTuple):
    """Weights as the library of products wants them.

    Attributes:
        weight: `(K, size)`.
        block: rows that they are multiplied with at a time.
    """

    weight: Tensor
    block: int


def usable(x: Tensor) -> bool:
    """Whether the kernel takes part: only inside compiled functions, for float32 on a CPU."""
    return (
        torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and hasattr(torch.ops.tdmpc2, "norm_act")
    )


def norm_act(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    factor: Tensor | None = None,
    group: int = 0,
    tau: float = 1.0,
) -> Tensor:
    """act(LayerNorm(factor·(x + bias))) of one layer, or of K at once.

    Args:
        x: `(..., D)` or `(K, N, D)`, products without bias.
        bias: `(D,)` or `(K, D)`, of the linear map.
        gamma: of the norm, like `bias`.
        beta: of the norm, like `bias`.
        factor: dropout factors like `x`, or None.
        group: 0 for Mish, 8 for SimNorm.
        tau: temperature of SimNorm.
    """
    if torch.is_grad_enabled() or _vectorised:
        return torch.ops.tdmpc2.norm_act(x, bias, gamma, beta, factor, group, tau)[0]
    torch.ops.tdmpc2.norm_act_(x, bias, gamma, beta, factor, group, tau)
    return x


@contextlib.contextmanager
def vectorized() -> Iterator[None]:
    """Inside, functions are vectorized by `torch.vmap`, which knows no operation in place."""
    global _vectorised
    _vectorised = True
    try:
        yield
    finally:
        _vectorised = False


def usable_blocked(x: Tensor, blocked: Blocked | None) -> bool:
    """Whether rows `(..., I)` can go through `dense` with these weights: whole blocks of them."""
    if blocked is None or torch.is_grad_enabled() or not usable(x):
        return False
    return x.numel() // x.shape[-1] % blocked.block == 0


def dense(
    x: Tensor,
    blocked: Blocked,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    heads: Tensor | None = None,
    group: int = 0,
    tau: float = 1.0,
) -> Tensor:
    """act(LayerNorm(x·Wᵀ + bias)) of one layer, or of K at once, without gradients.

    Args:
        x: `(..., I)`; for K layers `(N, I)`, the same for all, or `(K, N, I)`.
        blocked: weights that `BlockedWeights` has laid out.
        bias: `(O,)` or `(K', O)`, of the linear map.
        gamma: of the norm, like `bias`.
        beta: of the norm, like `bias`.
        heads: `(K,)`, which of K' layers to evaluate; all when None.
        group: 0 for Mish, 8 for SimNorm.
        tau: temperature of SimNorm.

    Returns:
        `(..., O)`, or `(K, N, O)`.
    """
    params = (blocked.weight, bias, gamma, beta, heads, blocked.block)
    return torch.ops.tdmpc2.dense(x, *params, group, tau)


@functools.cache
def load() -> bool:
    """Builds the kernel if this machine has not yet, and loads it.

    Returns:
        Whether it can be used; if not, a warning says why.
    """
    loaded = native_build.load(SOURCE)
    if loaded:
        _register()
    return loaded


def _register() -> None:
    """Tells torch the shapes of the operations, and the gradient of the first."""
    like = functools.partial(torch.empty_like, memory_format=torch.contiguous_format)

    @torch.library.register_fake("tdmpc2::norm_act")
    def _(x: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
        return like(x), x.new_empty(x.numel() // x.shape[-1], 2)

    @torch.library.register_fake("tdmpc2::norm_act_")
    def _(x: Tensor, *_others: Any) -> None:
        return None

    @torch.library.register_fake("tdmpc2::dense")
    def _(x: Tensor, blocked: Tensor, bias: Tensor, *others: Any) -> Tensor:
        heads = others[2]
        if bias.dim() == 1:
            return x.new_empty(*x.shape[:-1], bias.shape[0])
        num = blocked.shape[0] if heads is None else heads.shape[0]
        return x.new_empty(num, x.shape[-2], bias.shape[1])

    @torch.library.register_fake("tdmpc2::norm_act_backward")
    def _(grad: Tensor, x: Tensor, y: Tensor, stats: Tensor, bias: Tensor, *_: Any) -> Any:
        return like(x), like(bias), like(bias), like(bias)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, bias, gamma, beta, factor, ctx.group, ctx.tau = inputs
        ctx.save_for_backward(x, *output, bias, gamma, beta, factor)

    def backward(ctx: Any, grad: Tensor, _grad_stats: Tensor) -> tuple[Any, ...]:
        x, y, stats, bias, gamma, beta, factor = ctx.saved_tensors
        out = torch.ops.tdmpc2.norm_act_backward(
            grad, x, y, stats, bias, gamma, beta, factor, ctx.group, ctx.tau
        )
        return *out, None, None, None

    torch.library.register_autograd("tdmpc2::norm_act", backward, setup_context=setup_context)

    @torch.library.register_vmap("tdmpc2::norm_act")
    def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """K' models of one layer are K' layers of one model, and of K layers K'·K."""
        num, (group, tau) = info.batch_size, args[5:]
        tensors = zip(args[:5], in_dims[:5], strict=True)
        x, *params, factor = (None if t is None else _stack(t, dim, num) for t, dim in tensors)
        num_layers = params[0].numel() // params[0].shape[-1]
        rows = (num_layers, -1, x.shape[-1])
        flat = [p.reshape(num_layers, -1) for p in params]
        factor = None if factor is None else factor.reshape(rows)
        y, stats = torch.ops.tdmpc2.norm_act(x.reshape(rows), *flat, factor, group, tau)
        return (y.view(x.shape), stats.view(num, -1, 2)), (0, 0)


def _stack(x: Tensor, dim: int | None, num: int) -> Tensor:
    """A tensor with the dimension of `torch.vmap` in front."""
    return x.expand(num, *x.shape) if dim is None else x.movedim(dim, 0)
