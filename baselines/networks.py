"""MLPs with orthogonal initialization, shared by SAC and TD-MPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import kernels
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

    Attributes:
        native: whether to use `baselines.kernels` for inputs that they support.
    """

    native = False

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        *,
        norm_first: bool = False,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.widths = tuple(sizes[1:-1])
        self.norm = nn.LayerNorm(sizes[1]) if norm_first else None
        self.activation = activation
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
        if self.native and kernels.suits_mlp(inputs[-1], *self.widths):
            return self._forward_native(inputs, frozen)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            weight, bias = _detach_if(frozen, layer.weight, layer.bias)
            x = linear_of_parts(inputs, weight, bias)
            if self.norm is not None and i == 0:
                scale, shift = _detach_if(frozen, self.norm.weight, self.norm.bias)
                x = torch.tanh(F.layer_norm(x, x.shape[-1:], scale, shift, self.norm.eps))
            else:
                x = ACTIVATIONS[self.activation](x)
            inputs = (x,)
        return F.linear(inputs[0], *_detach_if(frozen, last.weight, last.bias))

    def _forward_native(self, inputs: tuple[Tensor, ...], frozen: bool) -> Tensor:
        """Apply all layers with the native kernel."""
        lead = inputs[-1].shape[:-1]
        x = torch.cat([part.expand(*lead, part.shape[-1]) for part in inputs], dim=-1)
        weights = _detach_if(frozen, *(layer.weight for layer in self.layers))
        biases = _detach_if(frozen, *(layer.bias for layer in self.layers))
        norm = None
        if self.norm is not None:
            scale, shift = _detach_if(frozen, self.norm.weight, self.norm.bias)
            norm = (scale, shift, self.norm.eps)
        blocked: Any = [getattr(layer, "blocked", None) for layer in self.layers]
        if None in blocked or torch.is_grad_enabled():
            blocked = None
        return kernels.mlp(x, weights, biases, self.activation, norm, blocked)


def _detach_if(frozen: bool, *parameters: Any) -> list[Tensor]:
    return [parameter.detach() if frozen else parameter for parameter in parameters]


def use_kernels(*networks: nn.Module) -> None:
    """Make these networks use the native kernels, if they can be loaded."""
    if not kernels.load():
        return
    for module in (module for network in networks for module in network.modules()):
        if hasattr(module, "native"):
            module.native = True  # type: ignore[assignment]


def num_parameters(*modules: nn.Module) -> int:
    """Return the number of parameters that require gradients."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
