"""Reward head and Q-functions as one batch of networks, for GPUs: one product per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.ensemble import QEnsemble, select_heads
from tdmpc2.layers import NormedLinear, mish

ALIGNMENT = 8  # tensor cores read rows of weights whose length is a multiple of this


def joinable(reward_head: nn.Module, q_functions: QEnsemble) -> bool:
    """Return whether both have the same layers: two hidden layers with or without norm, a head."""
    layers = list(reward_head.children())
    hidden, normed = layers[:-1], q_functions.norm1 is not None
    return len(hidden) == 2 and all(
        isinstance(layer, NormedLinear) and (layer.norm is not None) == normed for layer in hidden
    )


def joint_outputs(
    reward_head: nn.Module,
    q_functions: QEnsemble,
    parts: Sequence[Tensor],
    heads: Tensor | None = None,
    dropout: Tensor | None = None,
    epilogue: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return the outputs `(R + K, N, out_dim)` of the reward head and of K Q-functions.

    Args:
        reward_head: network of two hidden layers and a head.
        q_functions: networks with the same layers (`joinable`).
        parts: `(R + 1, N, ·)` each; their concatenation is R inputs of the reward head and one of
            the Q-functions.
        heads: `(K,)`, indices of the Q-functions; all if None.
        dropout: `(K, N, mlp_dim)`, dropout factors of the Q-functions; no dropout if None.
        epilogue: `plain_epilogue`, or a function with the same results.
    """
    epilogue = epilogue or plain_epilogue

    def joined(one: Any, ensemble: Any) -> Tensor:
        """Return a parameter of the reward head R times, then that of the K Q-functions."""
        chosen = select_heads(ensemble, heads, frozen=False)
        return torch.cat([one.expand(num_reward, *one.shape), chosen])

    *hidden, head = reward_head.children()
    num_reward = parts[0].shape[0] - 1
    missing = -sum(part.shape[-1] for part in parts) % ALIGNMENT
    num_q = q_functions.num_q if heads is None else len(heads)
    zeros = parts[0].new_zeros(*parts[0].shape[:-1], missing)
    x = torch.cat([*parts, zeros], dim=-1)
    x = torch.cat([x[:-1], x[-1:].expand(num_q, *x.shape[1:])])
    ensemble = (
        (q_functions.linear1, q_functions.norm1),
        (q_functions.linear2, q_functions.norm2),
    )
    for number, (layer, (linear, norm)) in enumerate(zip(hidden, ensemble, strict=True)):
        assert isinstance(layer, NormedLinear)
        weight = joined(layer.linear.weight, linear.weight)
        weight = F.pad(weight, (0, missing)) if number == 0 else weight
        x = torch.bmm(x, weight.transpose(1, 2)).float()
        bias = joined(layer.linear.bias, linear.bias)
        factor = dropout if number == 0 else None
        if norm is None:
            x = mish(_dropped(x + bias[:, None], factor))
            continue
        assert layer.norm is not None
        gamma, beta = joined(layer.norm.weight, norm.weight), joined(layer.norm.bias, norm.bias)
        # Stacked, they are one kernel.
        x = epilogue(x, *torch.stack([bias, gamma, beta]).unbind(), factor)
    weight = joined(head.weight, q_functions.linear3.weight)
    out = torch.bmm(x, weight.transpose(1, 2)).float()
    return out + joined(head.bias, q_functions.linear3.bias)[:, None]


def _dropped(x: Tensor, dropout: Tensor | None) -> Tensor:
    """Apply dropout factors `(K, N, dim)` to the last K of the layers `(R + K, N, dim)`."""
    if dropout is None:
        return x
    num_reward = len(x) - len(dropout)
    return torch.cat([x[:num_reward], x[num_reward:] * dropout])


def plain_epilogue(
    x: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, dropout: Tensor | None
) -> Tensor:
    """Return mish(γ·norm(dropout·(x + bias)) + β).

    Args:
        x: `(R + K, N, dim)`, products of inputs and weights.
        bias: `(R + K, dim)`.
        gamma: γ, `(R + K, dim)`.
        beta: β, `(R + K, dim)`.
        dropout: `(K, N, dim)`, factors of the last K layers; None for no dropout.
    """
    x = _dropped(x + bias[:, None], dropout)
    return mish(torch.addcmul(beta[:, None], F.layer_norm(x, x.shape[-1:]), gamma[:, None]))
