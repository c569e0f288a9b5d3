"""The ensemble of Q-functions: N networks evaluated with batched matrix multiplications."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.config import TDMPC2Config
from tdmpc2.layers import init_linear_, mish


class EnsembleLinear(nn.Module):
    """N independent linear layers in one tensor, evaluated as one batched multiplication.

    Args:
        num: N.
        in_dim: size of the input.
        out_dim: size of the output.
    """

    def __init__(self, num: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(num, out_dim))
        init_linear_(self.weight, self.bias)

    def forward(
        self,
        *inputs: Tensor,
        heads: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Return outputs `(K, B, out_dim)` of K chosen layers.

        Args:
            *inputs: tensors whose concatenation along the last dimension is the input: `(B, ·)`
                each, shared by all layers, or one `(K, B, in_dim)`.
            heads: `(K,)`, indices of the layers to evaluate; all N if None.
            frozen: compute no gradients for the parameters. Each input is then multiplied
                separately, so that inputs without gradient cost no backward pass.
        """
        weight, bias = (select_heads(p, heads, frozen) for p in (self.weight, self.bias))
        return batched_linear(inputs, weight, bias, join=not frozen)


def batched_linear(
    inputs: Sequence[Tensor], weight: Tensor, bias: Tensor | None, *, join: bool
) -> Tensor:
    """Apply K linear maps to the concatenation of several inputs: `(K, B, out_dim)`.

    Args:
        inputs: `(B, ·)` each, shared by all maps, or one `(K, B, in_dim)`.
        weight: `(K, out_dim, in_dim)`.
        bias: `(K, out_dim)`, or None.
        join: whether to concatenate the inputs; otherwise y = Σ_i W_i·x_i + b is computed, where
            W_i are the columns of x_i.
    """
    if join and len(inputs) > 1:
        inputs = (torch.cat(list(inputs), -1),)
    bias = None if bias is None else bias[:, None]
    late = gpu_forms.wanted(weight.device)  # `baddbmm` would copy the bias for every row
    total = None if late else bias
    start = 0
    for x in inputs:
        end = start + x.shape[-1]
        columns = weight[..., start:end].transpose(1, 2)
        if x.dim() == 2:
            x = x.expand(weight.shape[0], *x.shape)
        total = torch.bmm(x, columns) if total is None else torch.baddbmm(total, x, columns)
        start = end
    assert total is not None
    total = total.float()
    return total if bias is None or not late else total + bias


def select_heads(parameter: Tensor, heads: Tensor | None, frozen: bool) -> Tensor:
    """Return the values of a parameter for K chosen layers, `(K, ...)`.

    Args:
        parameter: `(N, ...)`.
        heads: `(K,)`, indices of the layers; all N if None.
        frozen: compute no gradients for the parameter.
    """
    if frozen:
        parameter = parameter.detach()
    return parameter if heads is None else parameter[heads]


class EnsembleNorm(nn.Module):
    """N independent LayerNorms over the last dimension.

    Args:
        num: N.
        dim: size of the normalized dimension.
    """

    def __init__(self, num: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, dim))
        self.bias = nn.Parameter(torch.zeros(num, dim))

    def forward(self, x: Tensor, heads: Tensor | None = None, frozen: bool = False) -> Tensor:
        """Normalize `(K, B, dim)` with K chosen LayerNorms.

        Args:
            x: `(K, B, dim)`.
            heads: `(K,)`, indices of the LayerNorms; all N if None.
            frozen: compute no gradients for the parameters.
        """
        weight, bias = (select_heads(p, heads, frozen) for p in (self.weight, self.bias))
        return torch.addcmul(bias[:, None], F.layer_norm(x, x.shape[-1:]), weight[:, None])


class QEnsemble(nn.Module):
    """Ensemble of N Q-functions (paper, Section 3.1).

    Layers: Linear → Dropout → LayerNorm → Mish, Linear → LayerNorm → Mish, Linear. Dropout is
    applied in the first layer only; its factors are an argument. The last layer starts at zero,
    so that all initial values are 0.

    Args:
        config: number, width, normalization and initialization of the Q-functions.
        in_dim: size of the input `[z, e, a]`.
        out_dim: number of outputs, e.g. bins.
    """

    def __init__(self, config: TDMPC2Config, in_dim: int, out_dim: int) -> None:
        super().__init__()
        num, width = config.num_q, config.mlp_dim
        normed = config.hidden_norm == "layernorm"
        self.num_q, self.width = num, width
        self.linear1 = EnsembleLinear(num, in_dim, width)
        self.norm1 = EnsembleNorm(num, width) if normed else None
        self.linear2 = EnsembleLinear(num, width, width)
        self.norm2 = EnsembleNorm(num, width) if normed else None
        self.linear3 = EnsembleLinear(num, width, out_dim)
        if config.q_init == "official_2024":
            self._default_init_hidden()
        nn.init.zeros_(self.linear3.weight)

    def _default_init_hidden(self) -> None:
        """Initialize hidden layers as `nn.Linear` does; official releases of 2024-26 did so."""
        for layer in (self.linear1, self.linear2):
            bound = layer.weight.shape[-1] ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(
        self,
        *inputs: Tensor,
        heads: Tensor | None = None,
        dropout: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Return outputs `(K, ..., out_dim)` of K chosen Q-functions.

        Args:
            *inputs: tensors `(..., ·)` of equal leading shape whose concatenation along the last
                dimension is the input.
            heads: `(K,)`, indices of the Q-functions to evaluate; all N if None.
            dropout: `(K, ..., mlp_dim)`, factors 0 or 1/(1 − p); no dropout if None.
            frozen: compute no gradients for the parameters, as in the policy loss; inputs without
                gradient then cost no backward pass.
        """
        batch_shape = inputs[0].shape[:-1]
        rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
        hidden = self.hidden(self.linear1, self.norm1, rows, heads, frozen, dropout)
        hidden = self.hidden(self.linear2, self.norm2, [hidden], heads, frozen)
        out = self.linear3(hidden, heads=heads, frozen=frozen)
        return out.view(-1, *batch_shape, out.shape[-1])

    def joint_epilogue(self, like: Tensor) -> Callable[..., Tensor] | None:
        """Return a native version of `joint_heads.plain_epilogue`, or None.

        Args:
            like: a tensor with device and dtype of the inputs.
        """
        return None

    def hidden(
        self,
        linear: EnsembleLinear,
        norm: EnsembleNorm | None,
        inputs: list[Tensor],
        heads: Tensor | None,
        frozen: bool,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """Apply a hidden layer: Linear → Dropout → LayerNorm → Mish; returns `(K, B, mlp_dim)`.

        Args:
            linear: linear layers.
            norm: LayerNorms; None for none.
            inputs: see `EnsembleLinear.forward`.
            heads: `(K,)`, indices of the Q-functions; all N if None.
            frozen: compute no gradients for the parameters.
            dropout: `(K, ..., mlp_dim)`, dropout factors; no dropout if None.
        """
        x = linear(*inputs, heads=heads, frozen=frozen)
        if dropout is not None:
            x = x * dropout.reshape(x.shape)
        return mish(x if norm is None else norm(x, heads, frozen))
