"""Regression of rewards and values: two-hot classification in symlog space, or squared error."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.config import TDMPC2Config


def symlog(x: Tensor) -> Tensor:
    """Return sign(x)·ln(1 + |x|), element by element (Hafner et al., 2023)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Return sign(x)·(e^|x| − 1), element by element: the inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class Regression(Protocol):
    """Interface of a regression: decodes outputs of a head and compares them with scalars.

    Attributes:
        out_dim: number of outputs of the head.
    """

    out_dim: int

    def decode(self, output: Tensor) -> Tensor:
        """Return the scalars `(...)` that head outputs `(..., out_dim)` predict."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss `(...)` of outputs `(..., out_dim)` for scalar targets `(...)`."""
        ...


class DiscreteRegression:
    """Cross-entropy over bins in symlog space with two-hot targets (paper, Section 3.1).

    The centers b_j = vmin + j·Δ, j = 0..num_bins − 1, are equally spaced in symlog space,
    Δ = (vmax − vmin) / (num_bins − 1).

    Args:
        num_bins: number of bins.
        vmin: symlog value of the first bin center.
        vmax: symlog value of the last bin center.
        without_matmul: whether `decode` multiplies and adds element by element, so that its result
            is float32 where matrix multiplications are in bfloat16.
    """

    def __init__(
        self, num_bins: int, vmin: float, vmax: float, *, without_matmul: bool = False
    ) -> None:
        self.out_dim = num_bins
        self.vmin, self.vmax = vmin, vmax
        self.bin_size = (vmax - vmin) / (num_bins - 1)
        self.without_matmul = without_matmul

    def bins(self, like: Tensor) -> Tensor:
        """Return bin centers `(num_bins,)` in symlog space, with device and dtype of `like`."""
        return torch.linspace(
            self.vmin, self.vmax, self.out_dim, device=like.device, dtype=like.dtype
        )

    def two_hot(self, x: Tensor) -> Tensor:
        """Return the two-hot encoding `(..., num_bins)` of scalars `(...)`.

        p_j = max(0, 1 − |u − j|) with u = (clip(symlog(x), vmin, vmax) − vmin) / Δ: the two bins
        next to u have the masses 1 − f and f, where f is the fractional part of u.
        """
        position = (symlog(x).clamp(self.vmin, self.vmax) - self.vmin) / self.bin_size
        index = torch.arange(self.out_dim, device=x.device, dtype=x.dtype)
        return (1 - (position[..., None] - index).abs()).clamp(min=0.0)

    def decode(self, output: Tensor) -> Tensor:
        """Return symexp(Σ_j softmax(output)_j·b_j): the expectation is taken in symlog space."""
        probs, bins = torch.softmax(output, dim=-1), self.bins(output)
        # On a GPU, the bins of a matrix multiplication would be stored first.
        if self.without_matmul or gpu_forms.wanted(output.device):
            return symexp((probs * bins).sum(-1))
        return symexp(probs @ bins)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy −Σ_j p_j·log_softmax(output)_j with p = two_hot(target)."""
        return -(self.two_hot(target) * torch.log_softmax(output, dim=-1)).sum(-1)


class ContinuousRegression:
    """Squared error of a scalar output.

    Args:
        in_symlog: whether the head predicts symlog(x) instead of x.
    """

    out_dim = 1

    def __init__(self, *, in_symlog: bool) -> None:
        self.in_symlog = in_symlog

    def decode(self, output: Tensor) -> Tensor:
        """Return the output, through symexp if the head predicts symlog values."""
        value = output[..., 0]
        return symexp(value) if self.in_symlog else value

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return (output − x)², or (output − symlog(x))² if the head predicts symlog values."""
        label = symlog(target) if self.in_symlog else target
        return (output[..., 0] - label).square()


def make_regression(config: TDMPC2Config) -> Regression:
    """Return the regression selected by `config.regression`."""
    if config.regression == "discrete":
        return DiscreteRegression(config.num_bins, config.vmin, config.vmax)
    return ContinuousRegression(in_symlog=config.regression == "symlog_mse")
