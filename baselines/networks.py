"""Networks that SAC and TD-MPC share: plain MLPs with orthogonal weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.layers import linear_of_parts

Activation = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    """Linear layers with an activation between them, and none after the last.

    Weights are orthogonal, biases zero.

    Args:
        sizes: of the input, of each hidden layer, and of the output.
        activation: after each hidden layer.
        norm_first: whether a LayerNorm and a tanh take the place of the first activation.
        zero_last: whether the last layer starts at exactly 0.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation,
        *,
        norm_first: bool = False,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(sizes[1]) if norm_first else None
        self.activation = activation
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if zero_last:
            nn.init.zeros_(layers[-1].weight)

    def forward(self, *parts: Tensor, frozen: bool = False) -> Tensor:
        """Maps `(..., sizes[0])`, given in one or more parts, to `(..., sizes[-1])`.

        Args:
            *parts: of the input; those of fewer rows than the others are broadcast.
            frozen: gradients for the input only, not for parameters.
        """

        def parameter(p: Any) -> Tensor:
            return p.detach() if frozen else p

        x: Tensor | None = None
        for i, layer in enumerate(self.layers):
            weight, bias = parameter(layer.weight), parameter(layer.bias)
            x = linear_of_parts(parts if x is None else (x,), weight, bias)
            if i == len(self.layers) - 1:
                break
            if self.norm is not None and i == 0:
                scale, shift = parameter(self.norm.weight), parameter(self.norm.bias)
                x = torch.tanh(F.layer_norm(x, x.shape[-1:], scale, shift, self.norm.eps))
            else:
                x = self.activation(x)
        assert x is not None
        return x


def num_parameters(*modules: nn.Module) -> int:
    """Parameters that gradients reach."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
