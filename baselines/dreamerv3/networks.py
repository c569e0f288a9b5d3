"""Layers of DreamerV3: linear maps without bias, LayerNorm, SiLU; and MLPs of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import kernels
from tdmpc2.layers import linear_of_parts

NORM_EPS = 1e-3
# Standard deviation of a standard normal that is cut at ±2.
CUT_STD = 0.87962566


def norm_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """SiLU(LayerNorm(x))."""
    return F.silu(F.layer_norm(x, x.shape[-1:], scale, shift, NORM_EPS))


def init_hidden_(weight: Tensor) -> None:
    """Truncated normal of variance 1 / mean of fan-in and fan-out."""
    std = math.sqrt(2 / sum(weight.shape)) / CUT_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Hidden(nn.Module):
    """Linear without bias → LayerNorm → SiLU.

    Args:
        in_dim, out_dim: of the linear map.

    Attributes:
        native: whether norm and activation go through `baselines.kernels` where they can.
        fused: norm and activation otherwise.
    """

    native = False
    fused: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(norm_silu)

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.scale = nn.Parameter(torch.ones(out_dim))
        self.shift = nn.Parameter(torch.zeros(out_dim))
        init_hidden_(self.weight)

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps `(..., in_dim)`, given in one or more parts."""
        return self.finish(linear_of_parts(parts, self.weight, None))

    def finish(self, products: Tensor) -> Tensor:
        """Norm and activation of products `(..., out_dim)`."""
        products = products.float()
        if self.native and kernels.suits(products, self.scale.shape[0]):
            return kernels.norm_silu(products, self.scale, self.shift, NORM_EPS)
        return self.fused(products, self.scale, self.shift)


class Output(nn.Linear):
    """A plain linear layer; uniform weights of variance 1 / mean fan, or zeros.

    Args:
        in_dim, out_dim: of the linear map.
        zero: whether it starts at exactly 0.
    """

    def __init__(self, in_dim: int, out_dim: int, *, zero: bool = False) -> None:
        super().__init__(in_dim, out_dim)
        limit = 0.0 if zero else math.sqrt(6 / (in_dim + out_dim))
        nn.init.uniform_(self.weight, -limit, limit)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., in_dim)` to float32 `(..., out_dim)`."""
        return super().forward(x).float()


class MLP(nn.Module):
    """Hidden layers, then outputs side by side (or none).

    Args:
        in_dim: of the input.
        layers, units: of the hidden layers.
        out_dims: of each output.
        zero: whether the outputs start at exactly 0.
    """

    def __init__(
        self,
        in_dim: int,
        layers: int,
        units: int,
        out_dims: Sequence[int] = (),
        *,
        zero: bool = False,
    ) -> None:
        super().__init__()
        sizes = [in_dim] + [units] * (layers - 1)
        self.hidden = nn.ModuleList(Hidden(size, units) for size in sizes)
        self.outputs = nn.ModuleList(Output(units, out_dim, zero=zero) for out_dim in out_dims)

    def trunk(self, *parts: Tensor) -> Tensor:
        """What the hidden layers make of the parts of an input, `(..., units)`."""
        first, *others = self.hidden
        x = first(*parts)
        for layer in others:
            x = layer(x)
        return x

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Each output."""
        x = self.trunk(*parts)
        return tuple(output(x) for output in self.outputs)
