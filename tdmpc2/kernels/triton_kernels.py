"""GPU kernels in Triton: bias, dropout, LayerNorm and Mish or SimNorm of a layer, and gradients.

One program computes one row in the forward pass, and `rows` rows in the backward pass, where it
also sums the gradients of the parameters over its rows. Nothing depends on the order in which
programs run, so that results repeat bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tdmpc2.kernels.triton_ops import partition


@triton.jit
def _mish_parts(h):  # type: ignore[no-untyped-def]
    """Return e = exp(h) and n = e·(e + 2), as in `layers._Mish`."""
    e = tl.exp(tl.minimum(h, 20.0))
    return e, e * (e + 2.0)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x_ptr,
    bias_ptr,
    gamma_ptr,
    beta_ptr,
    factor_ptr,
    y_ptr,
    stats_ptr,
    rows_per_layer,
    dim,
    tau,
    eps,
    block: tl.constexpr,
    group: tl.constexpr,
    dropped: tl.constexpr,
):
    """Compute one row: y = act(γ·norm(factor·(x + bias)) + β), and its mean and 1/std."""
    row = tl.program_id(0)
    column = tl.arange(0, block)
    valid = column < dim
    at = row.to(tl.int64) * dim + column
    param = (row // rows_per_layer) * dim + column
    x = tl.load(x_ptr + at, valid, 0.0) + tl.load(bias_ptr + param, valid, 0.0)
    if dropped:
        x = x * tl.load(factor_ptr + at, valid, 0.0)
    mean = tl.sum(x, 0) / dim
    centered = tl.where(valid, x - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centered * centered, 0) / dim + eps)
    gamma = tl.load(gamma_ptr + param, valid, 0.0)
    h = centered * scale * gamma + tl.load(beta_ptr + param, valid, 0.0)
    if group == 0:
        e, n = _mish_parts(h)
        y = h * (n / (n + 2.0))
    else:
        z = tl.reshape(h / tau, (block // group, group))
        e = tl.exp(z - tl.max(z, 1)[:, None])
        y = tl.reshape(e / tl.sum(e, 1)[:, None], (block,))
    tl.store(y_ptr + at, y, valid)
    tl.store(stats_ptr + 2 * row, mean)
    tl.store(stats_ptr + 2 * row + 1, scale)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    grad_ptr,
    x_ptr,
    y_ptr,
    stats_ptr,
    bias_ptr,
    gamma_ptr,
    beta_ptr,
    factor_ptr,
    dx_ptr,
    sums_ptr,
    num_sums,
    rows_per_layer,
    dim,
    tau,
    block: tl.constexpr,
    group: tl.constexpr,
    dropped: tl.constexpr,
    rows: tl.constexpr,
):
    """Compute the gradients of `rows` rows of a layer, and their sums over these rows."""
    part, layer = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, block)
    valid = column < dim
    param = layer * dim + column
    bias = tl.load(bias_ptr + param, valid, 0.0)
    gamma = tl.load(gamma_ptr + param, valid, 0.0)
    beta = tl.load(beta_ptr + param, valid, 0.0)
    d_bias = tl.zeros((block,), tl.float32)
    d_gamma = tl.zeros((block,), tl.float32)
    d_beta = tl.zeros((block,), tl.float32)
    for i in range(rows):
        within = part * rows + i
        row = layer * rows_per_layer + tl.minimum(within, rows_per_layer - 1)
        at = row.to(tl.int64) * dim + column
        here = valid & (column * 0 + within < rows_per_layer)
        grad = tl.load(grad_ptr + at, here, 0.0)
        x = tl.load(x_ptr + at, here, 0.0) + bias
        factor = tl.full((block,), 1.0, tl.float32)
        if dropped:
            factor = tl.load(factor_ptr + at, here, 0.0)
        mean = tl.load(stats_ptr + 2 * row)
        scale = tl.load(stats_ptr + 2 * row + 1)
        c = tl.where(here, (x * factor - mean) * scale, 0.0)
        h = c * gamma + beta
        if group == 0:
            e, n = _mish_parts(h)
            r = 1.0 / (n + 2.0)
            dh = grad * (r * (n + 4.0 * h * (e * (e + 1.0) * r)))
        else:
            y = tl.load(y_ptr + at, here, 0.0)
            along = tl.sum(tl.reshape(grad * y, (block // group, group)), 1)
            along = tl.broadcast_to(along[:, None], (block // group, group))
            dh = y * (grad - tl.reshape(along, (block,))) / tau
        dc = dh * gamma
        mean_dc, mean_dcc = tl.sum(dc, 0) / dim, tl.sum(dc * c, 0) / dim
        dx = scale * (dc - mean_dc - c * mean_dcc) * factor
        dx = tl.where(here, dx, 0.0)
        tl.store(dx_ptr + at, dx, here)
        d_bias += dx
        d_gamma += dh * c
        d_beta += dh
    place = (layer * num_sums + part) * dim + column
    size = tl.num_programs(1) * num_sums * dim
    tl.store(sums_ptr + place, d_bias, valid)
    tl.store(sums_ptr + size + place, d_gamma, valid)
    tl.store(sums_ptr + 2 * size + place, d_beta, valid)


def forward(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    factor: Tensor | None,
    group: int,
    tau: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return y and its row statistics; see `triton_ops.norm_act`.

    Args:
        x: `(..., D)` or `(K, N, D)`, contiguous.
        bias: `(D,)` or `(K, D)`.
        gamma: γ, shape of `bias`.
        beta: β, shape of `bias`.
        factor: dropout factors, shape of `x`, or None.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
        eps: added to the variance.
    """
    dim = x.shape[-1]
    num_rows, num_layers = x.numel() // dim, bias.numel() // dim
    y, stats = torch.empty_like(x), x.new_empty(num_rows, 2)
    _forward[(num_rows,)](
        *(x, bias, gamma, beta, x if factor is None else factor, y, stats),
        *(num_rows // num_layers, dim, tau, eps),
        block=triton.next_power_of_2(dim),
        group=group,
        dropped=factor is not None,
        num_warps=4,
    )
    return y, stats


def backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    stats: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    factor: Tensor | None,
    group: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Return dx and partial sums of the gradients of bias, γ and β `(3, K, P, D)`.

    Args:
        grad: gradient of y, contiguous.
        x: `(..., D)` or `(K, N, D)`, contiguous.
        y: result of `forward`.
        stats: row statistics of `forward`.
        bias: `(D,)` or `(K, D)`.
        gamma: γ, shape of `bias`.
        beta: β, shape of `bias`.
        factor: dropout factors, shape of `x`, or None.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
    """
    dim = x.shape[-1]
    num_layers = bias.numel() // dim
    per_layer = x.numel() // dim // num_layers
    rows, num_sums = partition(per_layer)
    dx, sums = torch.empty_like(x), x.new_empty(3, num_layers, num_sums, dim)
    _backward[(num_sums, num_layers)](
        *(grad, x, y, stats, bias, gamma, beta, x if factor is None else factor, dx, sums),
        *(num_sums, per_layer, dim, tau),
        block=triton.next_power_of_2(dim),
        group=group,
        dropped=factor is not None,
        rows=rows,
        num_warps=4,
    )
    return dx, sums
