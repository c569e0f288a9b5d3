"""What every agent learns with: its draws, gradients of pure losses, and steps on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Gradients = tuple[Tensor, ...]


class Draws:
    """Random draws from one generator, on the device where they are used.

    Args:
        seed: of the generator.
        device: of the draws.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws from [0, 1)."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def exponential(self, *shape: int) -> Tensor:
        """Exp(1) draws: argmax(log p − log E) is a draw from the categorical p."""
        return torch.empty(*shape, device=self.device).exponential_(generator=self.generator)


def differentiate(
    loss: Callable[..., Any], params: Sequence[Tensor], *args: Any
) -> tuple[Any, Gradients]:
    """Outcome of a pure loss, whose field `loss` is a scalar, and its gradients."""
    outcome = loss(*args)
    return outcome, torch.autograd.grad(outcome.loss, params)


def descend(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    gradients: Gradients,
    max_norm: float | None = None,
) -> Tensor:
    """One step on gradients, clipped to a norm if one is given; returns the norm before."""
    for parameter, gradient in zip(params, gradients, strict=True):
        # The fused Adam of torch 2.13 reads a transposed gradient in the wrong order.
        parameter.grad = gradient.contiguous()
    if max_norm is None:
        norm = nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    else:
        norm = nn.utils.clip_grad_norm_(params, max_norm)
    optimizer.step()
    return norm


@torch.no_grad()
def move_toward(target: Iterable[Tensor], online: Iterable[Tensor], share: float) -> None:
    """Exponential moving average of parameters: θ̄ ← θ̄ + share·(θ − θ̄)."""
    torch._foreach_lerp_(list(target), list(online), share)


def episode_discount(
    episode_length: int, denominator: float = 5.0, least: float = 0.95, most: float = 0.995
) -> float:
    """Discount that TD-MPC2 gives episodes of T decisions: clip((T/5 − 1)/(T/5), .95, .995)."""
    fraction = episode_length / denominator
    return min(max((fraction - 1) / fraction, least), most)


def percentile(ordered: Tensor, share: float) -> Tensor:
    """The value below which a share of the sorted values `(N,)` lies, linearly interpolated.

    Unlike `torch.quantile` it can be vectorized, and never waits for the device.
    """
    place = share * (ordered.shape[0] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[0] - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)


def all_finite(value: Any) -> bool:
    """Whether every floating-point tensor in a nested container is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(all_finite(item) for item in value)
    return True


@dataclass
class RunningMeans:
    """Means of an agent's metrics since they were last taken, summed on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Metrics of one gradient step."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; begins anew."""
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means
