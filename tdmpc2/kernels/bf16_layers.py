"""Layers of TD-MPC2 whose matrix multiplications in compiled functions are bfloat16 kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tdmpc2.ensemble import EnsembleLinear, EnsembleNorm, QEnsemble, select_heads
from tdmpc2.kernels import NativeLayers, bf16
from tdmpc2.kernels.layers import NativeNormedLinear, NativeQEnsemble
from tdmpc2.layers import NormedLinear


class Bf16NormedLinear(NativeNormedLinear):
    """A `NormedLinear` that is one kernel."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        if self.linear.out_features % bf16.TILE or not bf16.usable(inputs[0]):
            return super().forward(*inputs)
        assert self.norm is not None
        params = (self.linear.bias, self.norm.weight, self.norm.bias)
        options: Any = {"activation": self.activation, "tau": self.simnorm_tau}
        tiled = getattr(self.linear, "tiled", None)
        if bf16.usable_tiled(inputs, tiled):
            assert tiled is not None
            return bf16.dense(inputs, tiled, *params, **options)
        return bf16.layer(inputs, self.linear.weight, *params, **options)


class Bf16Linear(nn.Linear):
    """A linear output layer that is one kernel."""

    @staticmethod
    def supports(layer: nn.Linear) -> bool:
        """Return True: the kernel supports all sizes."""
        return True

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for an input `(..., in_dim)`."""
        if not bf16.usable(inputs[0]):
            return super().forward(*inputs)
        tiled = getattr(self, "tiled", None)
        if bf16.usable_tiled(inputs, tiled):
            assert tiled is not None
            return bf16.dense(inputs, tiled, self.bias)
        return bf16.layer(inputs, self.weight, self.bias)

    def blockable(self) -> list[nn.Module]:
        """Return this layer."""
        return [self]


class Bf16EnsembleLinear(EnsembleLinear):
    """An `EnsembleLinear` that is one kernel."""

    @staticmethod
    def supports(layer: EnsembleLinear) -> bool:
        """Return True: the kernel supports all sizes."""
        return True

    def forward(self, *inputs: Tensor, heads: Tensor | None = None, frozen: bool = False) -> Tensor:
        """Return outputs `(K, B, out_dim)`; see `EnsembleLinear.forward`.

        Args:
            *inputs: `(B, ·)` each, or one `(K, B, in_dim)`.
            heads: `(K,)`, indices of the layers to evaluate; all N if None.
            frozen: compute no gradients for the parameters.
        """
        if not _usable_for(inputs, heads, frozen):
            return super().forward(*inputs, heads=heads, frozen=frozen)
        tiled = getattr(self, "tiled", None)
        if bf16.usable_tiled(inputs, tiled):
            assert tiled is not None
            return bf16.dense(inputs, tiled, self.bias, heads=heads)
        weight = self.weight.detach() if frozen else self.weight
        return bf16.layer(inputs, weight, select_heads(self.bias, heads, frozen), heads=heads)

    def blockable(self) -> list[nn.Module]:
        """Return this layer."""
        return [self]


class Bf16QEnsemble(NativeQEnsemble):
    """A `QEnsemble` whose hidden layers are one kernel each."""

    def hidden(
        self,
        linear: EnsembleLinear,
        norm: EnsembleNorm | None,
        inputs: list[Tensor],
        heads: Tensor | None,
        frozen: bool,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """Apply a hidden layer; see `QEnsemble.hidden`.

        Args:
            linear: linear layers.
            norm: LayerNorms.
            inputs: see `EnsembleLinear.forward`.
            heads: `(K,)`, indices of the Q-functions; all N if None.
            frozen: compute no gradients for the parameters.
            dropout: `(K, ..., mlp_dim)`, dropout factors; no dropout if None.
        """
        if self.width % bf16.TILE or not _usable_for(inputs, heads, frozen):
            return super().hidden(linear, norm, inputs, heads, frozen, dropout)
        assert norm is not None
        params: list[Tensor] = [linear.bias, norm.weight, norm.bias]
        tiled = getattr(linear, "tiled", None)
        if dropout is None and bf16.usable_tiled(inputs, tiled):
            assert tiled is not None
            return bf16.dense(inputs, tiled, *params, activation="mish", heads=heads)
        params = [select_heads(p, heads, frozen) for p in params]
        weight = linear.weight.detach() if frozen else linear.weight
        factor = None if dropout is None else dropout.flatten(1, -2)
        options: Any = {"activation": "mish", "factor": factor, "heads": heads}
        return bf16.layer(inputs, weight, *params, **options)


def _usable_for(inputs: Sequence[Tensor], heads: Tensor | None, frozen: bool) -> bool:
    """Return whether the kernels support the layers of an ensemble that `heads` selects.

    Args:
        inputs: inputs of the layers.
        heads: indices of the layers; all if None.
        frozen: compute no gradients for the parameters; with `heads`, the kernels have none.
    """
    has_gradient = heads is None or frozen or not torch.is_grad_enabled()
    return has_gradient and bf16.usable(inputs[0])


NATIVE = NativeLayers(
    lambda _cpu: bf16.load(),
    {
        NormedLinear: Bf16NormedLinear,
        nn.Linear: Bf16Linear,
        QEnsemble: Bf16QEnsemble,
        EnsembleLinear: Bf16EnsembleLinear,
    },
)
