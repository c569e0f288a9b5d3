"""Networks that SAC and TD-MPC share: plain MLPs with orthogonal weights."""

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
    """Linear layers with an activation between them, and none after the last.

    Weights are orthogonal, biases zero.

    Args:
        sizes: of the input, of each hidden layer, and of the output.
        activation: after each hidden layer, `relu` or `elu`.
        norm_first: whether a LayerNorm and a tanh take the place of the first activation.
        zero_last: whether the last layer starts at exactly 0.

    Attributes:
        native: whether `baselines.kernels` stand in for all of this where they can.
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

    def forward(self, *parts: Tensor, frozen: bool = False) -> Tensor:
        """Maps `(..., sizes[0])`, given in one or more parts, to `(..., sizes[-1])`.

        Args:
            *parts: of the input; those of fewer rows than the others are broadcast.
            frozen: gradients for the input only, not for parameters.
        """
        if self.native and kernels.suits_mlp(parts[-1], *self.widths):
            return self._whole(parts, frozen)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x = linear_of_parts(parts, _cut(layer.weight, frozen), _cut(layer.bias, frozen))
            if self.norm is not None and i == 0:
                scale, shift = _cut(self.norm.weight, frozen), _cut(self.norm.bias, frozen)
                x = torch.tanh(F.layer_norm(x, x.shape[-1:], scale, shift, self.norm.eps))
            else:
                x = ACTIVATIONS[self.activation](x)
            parts = (x,)
        return F.linear(parts[0], _cut(last.weight, frozen), _cut(last.bias, frozen))

    def _whole(self, parts: tuple[Tensor, ...], frozen: bool) -> Tensor:
        """All layers by the native kernel."""
        lead = parts[-1].shape[:-1]
        x = torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1)
        weights = [_cut(layer.weight, frozen) for layer in self.layers]
        biases = [_cut(layer.bias, frozen) for layer in self.layers]
        norm = None
        if self.norm is not None:
            norm = (_cut(self.norm.weight, frozen), _cut(self.norm.bias, frozen), self.norm.eps)
        blocked: Any = [getattr(layer, "blocked", None) for layer in self.layers]
        if None in blocked or torch.is_grad_enabled():
            blocked = None
        return kernels.mlp(x, weights, biases, self.activation, norm, blocked)


def _cut(parameter: Any, frozen: bool) -> Tensor:
    return parameter.detach() if frozen else parameter


def use_kernels(*networks: nn.Module) -> None:
    """From now on these networks go through native kernels where they can, if there are any."""
    if not kernels.load():
        return
    for module in (module for network in networks for module in network.modules()):
        if hasattr(module, "native"):
            module.native = True  # type: ignore[assignment]


def num_parameters(*modules: nn.Module) -> int:
    """Parameters that gradients reach."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
