"""PyTorch operations of the Triton kernels, with gradients: `norm_act` of a layer on a GPU.

On a CPU the operations compute the same in plain PyTorch, for tests and for counting launches.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2 import kernels

EPS = 1e-5
PARTIAL_SUMS = 64
MAX_ERROR = 1e-4  # of the self-test, whose results are near 1
CASES = ((0, 1.0, False), (0, 1.0, True), (8, 0.7, False))  # group, temperature, dropout


@torch.library.custom_op("tdmpc2_triton::norm_act", mutates_args=(), device_types="cuda")
def norm_act(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    factor: Tensor | None,
    group: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Return act(γ·norm(factor·(x + bias)) + β), and mean and 1/std of each row `(rows, 2)`.

    Args:
        x: `(..., D)` or `(K, N, D)`, outputs of the linear map without bias.
        bias: `(D,)` or `(K, D)`, bias of the linear map; or bias, γ and β from `spread`.
        gamma: γ, shape of `bias`; None if `bias` holds it.
        beta: β, shape of `bias`; None if `bias` holds it.
        factor: dropout factors, shape of `x`; None for no dropout.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
    """
    from tdmpc2.kernels import triton_kernels

    b, g, s = (p.contiguous() for p in separate(bias, gamma, beta))
    factor = None if factor is None else factor.contiguous()
    return triton_kernels.forward(x.contiguous(), b, g, s, factor, group, tau, EPS)


@torch.library.custom_op("tdmpc2_triton::norm_act_backward", mutates_args=(), device_types="cuda")
def norm_act_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    stats: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    factor: Tensor | None,
    group: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Return dx, and partial sums of the gradients of bias, γ and β `(3, K, P, D)`.

    Args:
        grad: gradient of y.
        x: `(..., D)` or `(K, N, D)`, outputs of the linear map without bias.
        y: first result of `norm_act`.
        stats: second result of `norm_act`.
        bias: see `norm_act`.
        gamma: see `norm_act`.
        beta: see `norm_act`.
        factor: dropout factors, shape of `x`; None for no dropout.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
    """
    from tdmpc2.kernels import triton_kernels

    grad, x, y, stats = (t.contiguous() for t in (grad, x, y, stats))
    b, g, s = (p.contiguous() for p in separate(bias, gamma, beta))
    factor = None if factor is None else factor.contiguous()
    return triton_kernels.backward(grad, x, y, stats, b, g, s, factor, group, tau)


def separate(
    bias: Tensor, gamma: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return bias, γ and β as tensors of their own; see `norm_act`.

    Args:
        bias: `(D,)` or `(K, D)`; or all three from `spread`.
        gamma: γ, or None.
        beta: β, or None.
    """
    if gamma is None or beta is None:
        bias, gamma, beta = bias.select(-2, 0).unbind()
    return bias, gamma, beta


def spread(params: Tensor, num_rows: int) -> Tensor:
    """Return bias, γ and β, expanded by a dimension P: `(3, P, D)` or `(3, K, P, D)`.

    Each program of the backward pass computes the gradient of its own copy. The sum over copies,
    and over several calls of a layer, is then one kernel.

    Args:
        params: `(3, D)` or `(3, K, D)`.
        num_rows: number of rows of each layer.
    """
    num_sums = partition(num_rows)[1]
    return params.unsqueeze(-2).expand(*params.shape[:-1], num_sums, params.shape[-1])


@norm_act.register_kernel("cpu")
def plain(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    factor: Tensor | None,
    group: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Compute `norm_act` in plain PyTorch.

    Args:
        x: `(..., D)` or `(K, N, D)`.
        bias: see `norm_act`.
        gamma: see `norm_act`.
        beta: see `norm_act`.
        factor: dropout factors, shape of `x`, or None.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
    """
    u, h = _hidden(x, *separate(bias, gamma, beta), factor)
    mean, var = u.mean(-1), u.var(-1, correction=0)
    stats = torch.stack([mean, (var + EPS).rsqrt()], -1).view(-1, 2)
    if not group:
        return F.mish(h).contiguous(), stats
    groups = h.unflatten(-1, (-1, group)) / tau
    return torch.softmax(groups, -1).flatten(-2).contiguous(), stats


@norm_act_backward.register_kernel("cpu")
def plain_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    stats: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    factor: Tensor | None,
    group: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Compute `norm_act_backward` in plain PyTorch.

    Args:
        grad: gradient of y.
        x: `(..., D)` or `(K, N, D)`.
        y: first result of `norm_act`.
        stats: second result of `norm_act`.
        bias: see `norm_act`.
        gamma: see `norm_act`.
        beta: see `norm_act`.
        factor: dropout factors, shape of `x`, or None.
        group: 0 for Mish, otherwise the group size of SimNorm.
        tau: temperature of SimNorm.
    """
    bias, gamma, beta = separate(bias, gamma, beta)
    num_layers, dim = bias.numel() // x.shape[-1], x.shape[-1]
    shape = (num_layers, -1, dim)
    grad, u, y = grad.reshape(shape), x.reshape(shape), y.reshape(shape)
    bias, gamma, beta = (p.reshape(num_layers, 1, dim) for p in (bias, gamma, beta))
    mean, scale = stats.reshape(num_layers, -1, 2, 1).unbind(2)
    weights = torch.ones_like(u) if factor is None else factor.reshape(shape)
    c = ((u + bias) * weights - mean) * scale
    if group:
        groups = (grad * y).unflatten(-1, (-1, group)).sum(-1)
        dh = y * (grad - groups.repeat_interleave(group, -1)) / tau
    else:
        h = c * gamma + beta
        e = torch.exp(h.clamp(max=20.0))
        n = e * (e + 2.0)
        r = 1.0 / (n + 2.0)
        dh = grad * (r * (n + 4.0 * h * (e * (e + 1.0) * r)))
    dc = dh * gamma
    dx = scale * (dc - dc.mean(-1, keepdim=True) - c * (dc * c).mean(-1, keepdim=True)) * weights
    sums = x.new_zeros(3, num_layers, partition(dx.shape[1])[1], dim)
    sums[:, :, 0] = torch.stack([dx.sum(1), (dh * c).sum(1), dh.sum(1)])
    return dx.reshape(x.shape), sums


def _hidden(
    x: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, factor: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the input of the norm, and the input of the activation.

    Args:
        x: `(..., D)` or `(K, N, D)`.
        bias: `(D,)` or `(K, D)`.
        gamma: γ, shape of `bias`.
        beta: β, shape of `bias`.
        factor: dropout factors, shape of `x`, or None.
    """
    bias, gamma, beta = (p[:, None] if p.dim() == 2 else p for p in (bias, gamma, beta))
    u = (x + bias) if factor is None else (x + bias) * factor
    return u, gamma * F.layer_norm(u, u.shape[-1:], eps=EPS) + beta


def partition(per_layer: int) -> tuple[int, int]:
    """Return the rows of a program of the backward pass, and the programs of a layer.

    Args:
        per_layer: rows of each layer.
    """
    rows = max(-(-per_layer // PARTIAL_SUMS), 1)
    return rows, -(-per_layer // rows)


norm_act.register_fake(kernels.fake_norm_act)


@norm_act_backward.register_fake
def _(grad: Tensor, x: Tensor, y: Tensor, stats: Tensor, bias: Tensor, *others: Any) -> Any:
    num_layers = separate(bias, *others[:2])[0].numel() // x.shape[-1]
    num_sums = partition(x.numel() // x.shape[-1] // num_layers)[1]
    return kernels.empty_like(x), x.new_empty(3, num_layers, num_sums, x.shape[-1])


def _differentiate(ctx: Any, grad: Tensor, _grad_stats: Tensor) -> tuple[Any, ...]:
    x, y, stats, bias, gamma, beta, factor = ctx.saved_tensors
    dx, sums = norm_act_backward(grad, x, y, stats, bias, gamma, beta, factor, ctx.group, ctx.tau)
    if gamma is None:
        return dx, sums.view(bias.shape), None, None, None, None, None
    return dx, *sums.sum(2).view(3, *bias.shape).unbind(), None, None, None


norm_act.register_autograd(_differentiate, setup_context=kernels.save_norm_act)
norm_act.register_vmap(kernels.vmap_rule(norm_act))


@functools.cache
def load(device: torch.device) -> bool:
    """Compile the kernels for a GPU, and check them there against plain PyTorch.

    Args:
        device: the GPU.

    Returns:
        Whether the kernels can be used; if not, a warning gives the reason.
    """
    try:
        error = self_test(device)
    except Exception as problem:  # Triton raises many types, few of them documented
        reason = f"{type(problem).__name__}: {(str(problem).strip().splitlines() or [''])[0]}"
    else:
        if error <= MAX_ERROR:
            return True
        reason = f"results differ from plain PyTorch by {error:.1e}"
    warnings.warn(
        f"the Triton kernels cannot be used ({reason}); continuing without them, more slowly",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def self_test(device: torch.device) -> float:
    """Return the largest difference of results and gradients from plain PyTorch.

    Args:
        device: device to test.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for group, tau, dropped in CASES:
        k, n, d = 2, 40, 384
        x, grad = (torch.randn(k, n, d, generator=generator) for _ in range(2))
        params = [torch.randn(k, d, generator=generator) for _ in range(3)]
        factor = (torch.rand(k, n, d, generator=generator) > 0.1).float() if dropped else None
        args = (x, *params, factor)
        y, stats = plain(*args, group, tau)
        expected = [y, *plain_backward(grad, x, y, stats, *params, factor, group, tau)]
        moved = [None if t is None else t.to(device) for t in args]
        # Kernels are started on the current GPU.
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            found_y, found_stats = norm_act(*moved, group, tau)
            dx, sums = norm_act_backward(
                grad.to(device), moved[0], found_y, found_stats, *moved[1:], group, tau
            )
        expected[2], sums = expected[2].sum(2), sums.sum(2)
        for one, other in zip((found_y, dx, sums), expected, strict=True):
            scale = other.abs().max().clamp(min=1.0)
            worst = max(worst, float((one.cpu() - other).abs().max() / scale))
    return worst
