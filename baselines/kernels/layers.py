"""Layers of the baselines that use the native kernels for inputs that these support."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines import kernels
from baselines.dreamerv3.networks import NORM_EPS, Hidden
from baselines.networks import MLP, detach_if
from tdmpc2.kernels import NativeLayers


class NativeMLP(MLP):
    """An `MLP` that is one kernel."""

    @staticmethod
    def supports(layer: MLP) -> bool:
        """Return whether the layers multiply in float32; the rest depends on the input."""
        return layer.precision != "bf16"

    def forward(self, *inputs: Tensor, frozen: bool = False) -> Tensor:
        """Return outputs `(..., sizes[-1])`; see `MLP.forward`.

        Args:
            *inputs: tensors whose concatenation along the last dimension is the input.
            frozen: compute gradients for the inputs only, not for parameters.
        """
        if not kernels.suits_mlp(inputs, *self.widths):
            return super().forward(*inputs, frozen=frozen)
        lead = kernels.lead_of(inputs)
        x = torch.cat([part.expand(*lead, part.shape[-1]) for part in inputs], dim=-1)
        weights = detach_if(frozen, *(layer.weight for layer in self.layers))
        biases = detach_if(frozen, *(layer.bias for layer in self.layers))
        norm = None
        if self.norm is not None:
            scale, shift = detach_if(frozen, self.norm.weight, self.norm.bias)
            norm = (scale, shift, self.norm.eps)
        blocked: Any = [getattr(layer, "blocked", None) for layer in self.layers]
        if None in blocked or torch.is_grad_enabled():
            blocked = None
        return kernels.mlp(x, weights, biases, self.activation, norm, blocked)

    def blockable(self) -> list[nn.Module]:
        """Return all linear layers."""
        return list(self.layers)


class NativeHidden(Hidden):
    """A `Hidden` whose norm and activation are one kernel."""

    @staticmethod
    def supports(layer: Hidden) -> bool:
        """Return True: what the kernel supports also depends on the input."""
        return True

    def finish(self, products: Tensor) -> Tensor:
        """Apply norm and activation to outputs of the linear map, `(..., out_dim)`."""
        products = products.float()
        if not kernels.suits(products, self.scale.shape[0]):
            return super().finish(products)
        return kernels.norm_silu(products, self.scale, self.shift, NORM_EPS)


NATIVE = NativeLayers(lambda _cpu: kernels.load(), {MLP: NativeMLP, Hidden: NativeHidden})
