"""Layers of TD-MPC2 that use the native kernels in compiled functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tdmpc2 import kernels
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.ensemble import EnsembleLinear, EnsembleNorm, QEnsemble, batched_linear, select_heads
from tdmpc2.kernels import triton_ops
from tdmpc2.layers import NormedLinear, joint_parts, linear_of_parts


class NativeNormedLinear(NormedLinear):
    """A `NormedLinear` whose bias, norm and activation are one kernel.

    Attributes:
        in_place: whether the kernel may overwrite its input if gradients are disabled.
    """

    in_place = True

    @staticmethod
    def supports(layer: NormedLinear) -> bool:
        """Return whether the kernel supports the layer's width, norm and activation."""
        if layer.norm is None or layer.linear.out_features % kernels.LANES:
            return False
        group = layer.activation == "simnorm" and layer.simnorm_dim == kernels.GROUP
        return group or layer.activation == "mish"

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        if not kernels.usable(inputs[0]):
            return super().forward(*inputs)
        blocked = getattr(self.linear, "blocked", None)
        if kernels.usable_blocked(inputs[-1], blocked):
            joined = list(joint_parts(inputs))
            if len(joined) == 1:
                assert blocked is not None
                return kernels.dense(joined[0][0], blocked, *self._params(), **self._kind())
        x = linear_of_parts(inputs, self.linear.weight, None).float()
        return self._norm_act(x, *self._params())

    def shared(self, num_rows: int) -> Tensor | None:
        """Return bias, γ and β in one tensor, whose gradients of all calls are one sum.

        None if the kernel is not used, or without gradients, where it would save nothing.

        Args:
            num_rows: number of rows of each call.
        """
        bias = self.linear.bias
        on_gpu = gpu_forms.wanted(bias.device)
        if not (on_gpu and torch.is_grad_enabled() and kernels.usable(bias)):
            return None
        return triton_ops.spread(torch.stack(self._params()), num_rows)

    def complete(self, product: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the output for the product of inputs and weights; see `NormedLinear.complete`."""
        x = product.float()
        if shared is not None:
            return self._norm_act(x, shared, None, None)
        if self.activation == "simnorm" and kernels.usable(x):
            return self._norm_act(x, *self._params())
        return super().complete(x)  # LayerNorm and Mish are fused with what computes `product`

    def _norm_act(
        self, x: Tensor, bias: Tensor, gamma: Tensor | None, beta: Tensor | None
    ) -> Tensor:
        """Call the kernel.

        Args:
            x: see `kernels.norm_act`.
            bias: see `kernels.norm_act`.
            gamma: see `kernels.norm_act`.
            beta: see `kernels.norm_act`.
        """
        return kernels.norm_act(x, bias, gamma, beta, **self._kind(), in_place=self.in_place)

    def _params(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return bias, γ and β."""
        assert self.norm is not None
        return self.linear.bias, self.norm.weight, self.norm.bias

    def _kind(self) -> dict[str, Any]:
        """Return the activation as arguments of the kernels."""
        group = self.simnorm_dim if self.activation == "simnorm" else 0
        return {"group": group, "tau": self.simnorm_tau}

    def blockable(self) -> list[nn.Module]:
        """Return the linear layer."""
        return [self.linear]


class NativeQEnsemble(QEnsemble):
    """A `QEnsemble` whose hidden layers compute bias, dropout, norm and activation in one kernel.

    Attributes:
        in_place: whether the kernel may overwrite its input if gradients are disabled.
    """

    in_place = True

    @staticmethod
    def supports(layer: QEnsemble) -> bool:
        """Return whether the kernel supports the width and the norm of the hidden layers."""
        return layer.norm1 is not None and layer.width % kernels.LANES == 0

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
        if not kernels.usable(inputs[0]):
            return super().hidden(linear, norm, inputs, heads, frozen, dropout)
        assert norm is not None
        params: list[Tensor] = [linear.bias, norm.weight, norm.bias]
        blocked = getattr(linear, "blocked", None)
        if dropout is None and kernels.usable_blocked(inputs[0], blocked):
            assert blocked is not None
            x = torch.cat(inputs, dim=-1) if len(inputs) > 1 else inputs[0]
            return kernels.dense(x, blocked, *params, heads=heads)
        weight, *params = (select_heads(p, heads, frozen) for p in (linear.weight, *params))
        x = batched_linear(inputs, weight, None, join=not frozen)
        factor = None if dropout is None else dropout.reshape(x.shape)
        return kernels.norm_act(x, *params, factor=factor, in_place=self.in_place)

    def joint_epilogue(self, like: Tensor) -> Callable[..., Tensor] | None:
        """Return the kernel as an epilogue; see `QEnsemble.joint_epilogue`."""
        return (
            functools.partial(_epilogue, in_place=self.in_place) if kernels.usable(like) else None
        )

    def blockable(self) -> list[nn.Module]:
        """Return the linear layers of the hidden layers."""
        return [self.linear1, self.linear2]


def _epilogue(x: Tensor, params: Tensor, dropout: Tensor | None, *, in_place: bool) -> Tensor:
    """Compute `joint_heads.plain_epilogue` with the kernel.

    Args:
        x: `(R + K, N, dim)`.
        params: `(3, R + K, dim)`, bias, γ and β.
        dropout: `(K, N, dim)`, factors of the last K layers; None for no dropout.
        in_place: whether the kernel may overwrite x.
    """
    if dropout is not None:
        others = torch.ones_like(x[: len(x) - len(dropout)])
        dropout = torch.cat([others, dropout])
    params = triton_ops.spread(params, x.shape[-2])
    return kernels.norm_act(x, params, None, None, factor=dropout, in_place=in_place)


class VectorizedNormedLinear(NativeNormedLinear):
    """A `NativeNormedLinear` for `torch.vmap`, which does not support operations in place."""

    in_place = False


class VectorizedQEnsemble(NativeQEnsemble):
    """A `NativeQEnsemble` for `torch.vmap`, which does not support operations in place."""

    in_place = False


NATIVE = kernels.NativeLayers(
    lambda _cpu: kernels.load(), {NormedLinear: NativeNormedLinear, QEnsemble: NativeQEnsemble}
)
TRITON = kernels.NativeLayers(triton_ops.load, NATIVE.versions)
VECTORIZED = kernels.NativeLayers(
    lambda _cpu: kernels.load(),
    {NormedLinear: VectorizedNormedLinear, QEnsemble: VectorizedQEnsemble},
)
VECTORIZED_TRITON = kernels.NativeLayers(triton_ops.load, VECTORIZED.versions)
