"""Layers of DreamerV3: Linear without bias → LayerNorm → SiLU, output layers, and MLPs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from tdmpc2.layers import linear_of_parts
from tdmpc2.regression import DiscreteRegression

NORM_EPS = 1e-3
# Standard deviation of a standard normal distribution truncated at ±2.
CUT_STD = 0.87962566


def norm_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return SiLU(LayerNorm(x)), `(..., D)`, with ε = 1e-3.

    Args:
        x: `(..., D)`.
        scale: `(D,)`, scale of the LayerNorm.
        shift: `(D,)`, shift of the LayerNorm.
    """
    return F.silu(F.layer_norm(x, x.shape[-1:], scale, shift, NORM_EPS))


def init_hidden_(weight: Tensor) -> None:
    """Initialize with a truncated normal of variance 1 / fan, fan = (fan-in + fan-out) / 2."""
    std = math.sqrt(2 / sum(weight.shape)) / CUT_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Hidden(nn.Module):
    """Hidden layer: Linear without bias → LayerNorm → SiLU.

    Args:
        in_dim, out_dim: sizes of input and output.
    """

    norm_silu = staticmethod(norm_silu)

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.scale = nn.Parameter(torch.ones(out_dim))
        self.shift = nn.Parameter(torch.zeros(out_dim))
        init_hidden_(self.weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        return self.finish(linear_of_parts(inputs, self.weight, None))

    def finish(self, products: Tensor) -> Tensor:
        """Apply norm and activation to outputs of the linear map, `(..., out_dim)`."""
        return self.norm_silu(products.float(), self.scale, self.shift)


class Output(nn.Linear):
    """Linear output layer, initialized uniformly with variance 1 / fan, or with zeros.

    fan = (fan-in + fan-out) / 2.

    Args:
        in_dim, out_dim: sizes of input and output.
        zero: whether to initialize the weights with 0.
    """

    def __init__(self, in_dim: int, out_dim: int, *, zero: bool = False) -> None:
        super().__init__(in_dim, out_dim)
        limit = 0.0 if zero else math.sqrt(6 / (in_dim + out_dim))
        nn.init.uniform_(self.weight, -limit, limit)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 outputs `(..., out_dim)` of inputs `(..., in_dim)`."""
        return super().forward(x).float()


class MLP(nn.Module):
    """Hidden layers, followed by zero or more output layers that share them.

    Args:
        in_dim: size of the input.
        layers, units: number and width of the hidden layers.
        out_dims: size of each output.
        zero: whether to initialize the output layers with 0.
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

    def trunk(self, *inputs: Tensor) -> Tensor:
        """Return the last hidden layer `(..., units)` for inputs to be concatenated."""
        first, *others = self.hidden
        x = first(*inputs)
        for layer in others:
            x = layer(x)
        return x

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all outputs, `(..., out_dim)` each, for inputs to be concatenated."""
        x = self.trunk(*inputs)
        return tuple(output(x) for output in self.outputs)


def make_regression(config: DreamerV3Config) -> DiscreteRegression:
    """Return the regression of rewards and values; it decodes in float32 in every precision."""
    c = config
    bf16 = c.precision == "bf16"
    return DiscreteRegression(c.num_bins, c.vmin, c.vmax, without_matmul=bf16)
