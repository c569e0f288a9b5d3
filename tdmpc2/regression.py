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
        """Bin centres `(num_bins,)` in symlog space, on the device of `like`."""
        return torch.linspace(
            self.vmin, self.vmax, self.out_dim, device=like.device, dtype=like.dtype
        )

    def position(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower bin index and the share of the bin above it, for scalars `x`."""
        place = (symlog(x).clamp(self.vmin, self.vmax) - self.vmin) / self.bin_size
        lower = place.floor()
        # NaN has no bin; its share is NaN, so that the loss shows it instead of a bad index.
        return lower.nan_to_num(0.0).long(), place - lower

    def two_hot(self, x: Tensor) -> Tensor:
        """Two-hot encoding `(..., num_bins)` of scalars `(...)`."""
        lower, share = self.position(x)
        upper = (lower + 1) % self.out_dim  # wraps only at vmax, where the share is 0
        encoding = torch.zeros(*x.shape, self.out_dim, device=x.device, dtype=x.dtype)
        encoding.scatter_(-1, lower[..., None], (1 - share)[..., None])
        return encoding.scatter_add_(-1, upper[..., None], share[..., None])

    def decode(self, output: Tensor) -> Tensor:
        """The expected bin centre, brought back by symexp."""
        probs = torch.softmax(output, dim=-1)
        return symexp(probs @ self.bins(output))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with the two-hot target, which has two non-zero entries only."""
        lower, share = self.position(target)
        upper = (lower + 1) % self.out_dim
        log_probs = torch.log_softmax(output, dim=-1)
        at_lower = log_probs.gather(-1, lower[..., None])[..., 0]
        at_upper = log_probs.gather(-1, upper[..., None])[..., 0]
        return -((1 - share) * at_lower + share * at_upper)


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
