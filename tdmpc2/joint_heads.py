"""Reward head and Q-functions as one batch of networks, for GPUs: one product per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.ensemble import QEnsemble
from tdmpc2.layers import NormedLinear, mish

ALIGNMENT = 8  # tensor cores read rows of weights whose length is a multiple of this


def joinable(reward_head: nn.Module, q_functions: QEnsemble) -> bool:
    """Return whether both have the same layers: two hidden layers with or without norm, a head."""
    layers = list(reward_head.children())
    hidden, normed = layers[:-1], q_functions.norm1 is not None
    return len(hidden) == 2 and all(
        isinstance(layer, NormedLinear) and (layer.norm is not None) == normed for layer in hidden
    )


class JointWeights(NamedTuple):
    """Parameters of R reward heads, which are copies of one, and of K Q-functions.

    Attributes:
        hidden: for both hidden layers, weights `(R + K, out_dim, in_dim)`, and bias, γ and β
            `(3, R + K, out_dim)`, of which only the bias is used without norm.
        head: weights `(R + K, out_dim, in_dim)` and bias `(R + K, out_dim)` of the last layer.
    """

    hidden: tuple[tuple[Tensor, Tensor], ...]
    head: tuple[Tensor, Tensor]

    def iteration(self, i: int, dim: int = 0) -> JointWeights:
        """Return the parameters of one of I choices of Q-functions.

        Args:
            i: number of the choice.
            dim: number of dimensions before the dimension I of weights.
        """
        weight, bias = self.head
        return JointWeights(
            tuple((w.select(dim, i), rest.select(dim + 1, i)) for w, rest in self.hidden),
            (weight.select(dim, i), bias.select(dim, i)),
        )


def join(
    reward_head: nn.Module, q_functions: QEnsemble, num_reward: int, heads: Tensor | None = None
) -> JointWeights:
    """Return the parameters of `num_reward` copies of the reward head and of K Q-functions.

    Args:
        reward_head: network of two hidden layers and a head.
        q_functions: networks with the same layers (`joinable`).
        num_reward: R.
        heads: `(K,)`, indices of the Q-functions; all if None. With `(I, K)`, I choices at once:
            weights are `(I, R + K, ...)`, and bias, γ and β `(3, I, R + K, ...)`.
    """
    lead = () if heads is None else heads.shape[:-1]

    def joined(ones: Sequence[Tensor], ensembles: Sequence[Tensor]) -> Tensor:
        """Return parameters of the reward head R times, then those of the K Q-functions.

        Args:
            ones: parameters of the reward head, `shape` each.
            ensembles: parameters of the Q-functions, `(num_q, *shape)` each.

        Returns:
            `(number of parameters, *lead, R + K, *shape)`.
        """
        shape, num = ones[0].shape, len(ones)
        one = torch.stack(list(ones)).view(num, *[1] * len(lead), 1, *shape)
        # Parameters are stacked before heads are chosen, so that each needs no kernel of its own.
        all_q = torch.stack(list(ensembles))
        chosen = all_q if heads is None else all_q[:, heads]
        return torch.cat([one.expand(num, *lead, num_reward, *shape), chosen], dim=1 + len(lead))

    *layers, head = reward_head.children()
    ensemble = (
        (q_functions.linear1, q_functions.norm1),
        (q_functions.linear2, q_functions.norm2),
    )
    hidden = []
    for number, (layer, (linear, norm)) in enumerate(zip(layers, ensemble, strict=True)):
        assert isinstance(layer, NormedLinear)
        weight = joined([layer.linear.weight], [linear.weight])[0]
        if number == 0:
            weight = F.pad(weight, (0, -weight.shape[-1] % ALIGNMENT))
        ones, all_q = [layer.linear.bias], [linear.bias]
        if norm is not None:
            assert layer.norm is not None
            ones += [layer.norm.weight, layer.norm.bias]
            all_q += [norm.weight, norm.bias]
        hidden.append((weight, joined(ones, all_q)))
    last = q_functions.linear3
    assert isinstance(head, nn.Linear)
    weight = joined([head.weight], [last.weight])[0]
    bias = joined([head.bias], [last.bias])[0]
    return JointWeights(tuple(hidden), (weight, bias))


def joint_outputs(
    weights: JointWeights,
    parts: Sequence[Tensor],
    dropout: Tensor | None = None,
    epilogue: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return the outputs `(R + K, N, out_dim)` of R reward heads and of K Q-functions.

    Args:
        weights: their parameters.
        parts: `(R + K, N, ·)` each; their concatenation is the input.
        dropout: `(K, N, mlp_dim)`, dropout factors of the Q-functions; no dropout if None.
        epilogue: `plain_epilogue`, or a function with the same results.
    """
    epilogue = epilogue or plain_epilogue
    missing = -sum(part.shape[-1] for part in parts) % ALIGNMENT
    x = _concatenated(parts, missing)
    for number, (weight, rest) in enumerate(weights.hidden):
        x = torch.bmm(x, weight.transpose(1, 2)).float()
        factor = dropout if number == 0 else None
        if len(rest) == 1:
            x = mish(_dropped(x + rest[0][:, None], factor))
        else:
            x = epilogue(x, rest, factor)
    weight, bias = weights.head
    return torch.bmm(x, weight.transpose(1, 2)).float() + bias[:, None]


def _concatenated(parts: Sequence[Tensor], missing: int) -> Tensor:
    """Return the concatenation of parts and `missing` zeros along the last dimension.

    A sum of padded parts: inductor fuses it with what computes them, which it does not do with
    every concatenation.

    Args:
        parts: `(R + K, N, ·)` each.
        missing: number of zeros.
    """
    size, start, total = sum(part.shape[-1] for part in parts) + missing, 0, None
    for part in parts:
        end = start + part.shape[-1]
        padded = F.pad(part, (start, size - end))
        total, start = padded if total is None else total + padded, end
    assert total is not None
    return total


def _dropped(x: Tensor, dropout: Tensor | None) -> Tensor:
    """Apply dropout factors `(K, N, dim)` to the last K of the layers `(R + K, N, dim)`."""
    if dropout is None:
        return x
    num_reward = len(x) - len(dropout)
    return torch.cat([x[:num_reward], x[num_reward:] * dropout])


def plain_epilogue(x: Tensor, params: Tensor, dropout: Tensor | None) -> Tensor:
    """Return mish(γ·norm(dropout·(x + bias)) + β).

    Args:
        x: `(R + K, N, dim)`, products of inputs and weights.
        params: `(3, R + K, dim)`, bias, γ and β.
        dropout: `(K, N, dim)`, factors of the last K layers; None for no dropout.
    """
    bias, gamma, beta = params[:, :, None]
    x = _dropped(x + bias, dropout)
    return mish(torch.addcmul(beta, F.layer_norm(x, x.shape[-1:]), gamma))
