"""How rewards and values are predicted: two-hot classification in symlog space, or plain MSE."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tdmpc2.config import TDMPC2Config


def symlog(x: Tensor) -> Tensor:
    """sign(x)·ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`: sign(x)·(e^|x| − 1)."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class Regression(Protocol):
    """Turns a head's outputs into scalars and measures their loss against scalars."""

    out_dim: int

    def decode(self, output: Tensor) -> Tensor:
        """Scalars `(...)` of head outputs `(..., out_dim)`."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Element-wise loss `(...)` of outputs `(..., out_dim)` against scalars `(...)`."""
        ...


class DiscreteRegression:
    """Classification over bins in symlog space with two-hot targets (paper, Section 3.1).

    Args:
        num_bins: number of bins.
        vmin, vmax: symlog values of the first and last bin.
    """

    def __init__(self, num_bins: int, vmin: float, vmax: float) -> None:
        self.out_dim = num_bins
        self.vmin, self.vmax = vmin, vmax
        self.bin_size = (vmax - vmin) / (num_bins - 1)

    def bins(self, like: Tensor) -> Tensor:
        """Bin centers `(num_bins,)` in symlog space, on the device of `like`."""
        return torch.linspace(
            self.vmin, self.vmax, self.out_dim, device=like.device, dtype=like.dtype
        )

    def two_hot(self, x: Tensor) -> Tensor:
        """Two-hot encoding `(..., num_bins)` of scalars `(...)`.

        Bin j gets max(0, 1 − |place − j|) with the place of symlog(x) in units of bins: the
        two nearest bins share a mass of 1 in proportion to their nearness.
        """
        place = (symlog(x).clamp(self.vmin, self.vmax) - self.vmin) / self.bin_size
        index = torch.arange(self.out_dim, device=x.device, dtype=x.dtype)
        return (1 - (place[..., None] - index).abs()).clamp(min=0.0)

    def decode(self, output: Tensor) -> Tensor:
        """The expected bin center, brought back by symexp."""
        probs = torch.softmax(output, dim=-1)
        return symexp(probs @ self.bins(output))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with the two-hot target."""
        return -(self.two_hot(target) * torch.log_softmax(output, dim=-1)).sum(-1)


class ContinuousRegression:
    """Scalar heads with mean squared error, on symlog targets or on raw ones."""

    out_dim = 1

    def __init__(self, *, in_symlog: bool) -> None:
        self.in_symlog = in_symlog

    def decode(self, output: Tensor) -> Tensor:
        """The scalar itself, through symexp where the head predicts symlog values."""
        value = output[..., 0]
        return symexp(value) if self.in_symlog else value

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error."""
        goal = symlog(target) if self.in_symlog else target
        return (output[..., 0] - goal).square()


def make_regression(config: TDMPC2Config) -> Regression:
    """The regression that `config.regression` names."""
    if config.regression == "discrete":
        return DiscreteRegression(config.num_bins, config.vmin, config.vmax)
    return ContinuousRegression(in_symlog=config.regression == "symlog_mse")
