"""Layers of TD-MPC2 whose matrix multiplications in compiled functions are bfloat16 kernels."""

from __future__ import annotations

from torch import Tensor, nn

from tdmpc2.ensemble import EnsembleLinear, EnsembleNorm, QEnsemble
from tdmpc2.kernels import NativeLayers, bf16
from tdmpc2.kernels.layers import NativeNormedLinear, NativeQEnsemble
from tdmpc2.layers import NormedLinear


class Bf16NormedLinear(NativeNormedLinear):
    """A `NormedLinear` that is one kernel where there are tiled weights."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        tiled = getattr(self.linear, "tiled", None)
        if self.linear.out_features % bf16.TILE or not bf16.usable(inputs, tiled):
            return super().forward(*inputs)
        assert self.norm is not None
        params = (self.linear.bias, self.norm.weight, self.norm.bias)
        group = self.simnorm_dim if self.activation == "simnorm" else 0
        return bf16.dense(inputs, tiled, *params, group=group, tau=self.simnorm_tau)


class Bf16Linear(nn.Linear):
    """A linear output layer that is one kernel where there are tiled weights."""

    @staticmethod
    def supports(layer: nn.Linear) -> bool:
        """Return True: the kernel supports all sizes."""
        return True

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for an input `(..., in_dim)`."""
        tiled = getattr(self, "tiled", None)
        if not bf16.usable(inputs, tiled):
            return super().forward(*inputs)
        return bf16.dense(inputs, tiled, self.bias)

    def blockable(self) -> list[nn.Module]:
        """Return this layer."""
        return [self]


class Bf16EnsembleLinear(EnsembleLinear):
    """An `EnsembleLinear` that is one kernel where there are tiled weights."""

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
        tiled = getattr(self, "tiled", None)
        if not bf16.usable(inputs, tiled):
            return super().forward(*inputs, heads=heads, frozen=frozen)
        return bf16.dense(inputs, tiled, self.bias, heads=heads)

    def blockable(self) -> list[nn.Module]:
        """Return this layer."""
        return [self]


class Bf16QEnsemble(NativeQEnsemble):
    """A `QEnsemble` whose hidden layers are one kernel each where there are tiled weights."""

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
        tiled = getattr(linear, "tiled", None)
        if dropout is not None or self.width % bf16.TILE or not bf16.usable(inputs, tiled):
            return super().hidden(linear, norm, inputs, heads, frozen, dropout)
        assert norm is not None
        return bf16.dense(inputs, tiled, linear.bias, norm.weight, norm.bias, heads=heads)


NATIVE = NativeLayers(
    bf16.load,
    {
        NormedLinear: Bf16NormedLinear,
        nn.Linear: Bf16Linear,
        QEnsemble: Bf16QEnsemble,
        EnsembleLinear: Bf16EnsembleLinear,
    },
)
