"""MLPs with orthogonal initialization, shared by SAC and TD-MPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.common.numerics.precision import products_in
from tdmpc2.layers import linear_of_parts

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu}


class MLP(nn.Module):
    """Linear layers with an activation after each but the last.

    Weights are initialized orthogonally, biases with 0.

    Args:
        sizes: sizes of the input, of each hidden layer and of the output.
        activation: activation of the hidden layers, `relu` or `elu`.
        norm_first: whether to use LayerNorm → tanh instead of the first activation.
        zero_last: whether to initialize the last layer with 0.
        precision: precision of matrix multiplications, `fp32`, `tf32` or `bf16`; everything else is
            float32.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        *,
        norm_first: bool = False,
        zero_last: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.widths = tuple(sizes[1:-1])
        self.norm = nn.LayerNorm(sizes[1]) if norm_first else None
        self.activation, self.precision = activation, precision
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if zero_last:
            nn.init.zeros_(layers[-1].weight)

    def forward(self, *inputs: Tensor, frozen: bool = False) -> Tensor:
        """Return outputs `(..., sizes[-1])`.

        Args:
            *inputs: tensors whose concatenation along the last dimension is the input
                `(..., sizes[0])`; leading dimensions are broadcast.
            frozen: compute gradients for the inputs only, not for parameters.
        """
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            weight, bias = detach_if(frozen, layer.weight, layer.bias)
            with products_in(self.precision, weight.device.type):
                x = linear_of_parts(inputs, weight, bias).float()
            if self.norm is not None and i == 0:
                scale, shift = detach_if(frozen, self.norm.weight, self.norm.bias)
                x = torch.tanh(F.layer_norm(x, x.shape[-1:], scale, shift, self.norm.eps))
            else:
                x = ACTIVATIONS[self.activation](x)
            inputs = (x,)
        weight, bias = detach_if(frozen, last.weight, last.bias)
        with products_in(self.precision, weight.device.type):
            return F.linear(inputs[0], weight, bias).float()


def detach_if(frozen: bool, *parameters: Any) -> list[Tensor]:
    """Return the parameters, detached if `frozen`."""
    return [parameter.detach() if frozen else parameter for parameter in parameters]


def num_parameters(*modules: nn.Module) -> int:
    """Return the number of parameters that require gradients."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
