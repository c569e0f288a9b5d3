"""Tools for training agents: random numbers, gradients of pure losses, optimizer steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdmpc2.common.numerics import gpu_forms

Gradients = tuple[Tensor, ...]


class Adam(torch.optim.Adam):
    """Adam whose methods do not import torch's compiler.

    In torch 2.13 the methods of an optimizer import `torch._dynamo`, in case they are part of
    compiled code. That takes as long as importing torch. The steps of agents are not compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class Draws:
    """Random numbers from one generator, created on the device where they are used.

    Args:
        seed: seed of the generator.
        device: device of the generator and of its samples.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal samples of this shape."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform samples from [0, 1) of this shape."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def exponential(self, *shape: int) -> Tensor:
        """Return Exp(1) samples E of this shape.

        argmax(log p − log E) is a sample of the categorical distribution p (Gumbel-max trick).
        """
        return torch.empty(*shape, device=self.device).exponential_(generator=self.generator)


def differentiate(
    loss: Callable[..., Any], params: Sequence[Tensor], *args: Any
) -> tuple[Any, Gradients]:
    """Evaluate a pure loss and its gradients.

    Args:
        loss: function that returns an object with a scalar field `loss`.
        params: parameters to differentiate with respect to.
        *args: arguments of the loss.

    Returns:
        The result of the loss, and one gradient per parameter.
    """
    result = loss(*args)
    # On a CPU, passing the 1 saves nothing, and torch 2.13 would import sympy to check its shape.
    start = _one(result.loss.device) if result.loss.is_cuda else None
    return result, torch.autograd.grad(result.loss, params, start)


@functools.cache
def _one(device: torch.device) -> Tensor:
    """Return 1, which the gradient of a loss starts with, as a tensor that is created once."""
    return torch.ones((), device=device)


def descend(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    gradients: Gradients,
    max_norm: float | None = None,
    clip: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Take one optimizer step.

    With `max_norm`, the gradients g are first scaled by min(1, max_norm / ‖g‖₂), where the norm is
    that of all gradients together.

    Args:
        optimizer: optimizer of the parameters.
        params: parameters, in the order of the gradients.
        gradients: one gradient per parameter.
        max_norm: largest norm of the gradients; None for no clipping.
        clip: `clip_divisor`, or a function with the same results; None for `clip_divisor`.

    Returns:
        The norm of the gradients before clipping, a scalar.
    """
    for parameter, gradient in zip(params, gradients, strict=True):
        # The fused Adam of torch 2.13 reads a transposed gradient in the wrong order.
        parameter.grad = gradient.contiguous()
    if max_norm is not None and gpu_forms.wanted(params[0].device):
        grads = [p.grad for p in params if p.grad is not None]
        norm, divisor = (clip or clip_divisor)(torch._foreach_norm(grads), max_norm)
        _step_divided(optimizer, grads, divisor)
        return norm
    if max_norm is None:
        norm = nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    else:
        norm = nn.utils.clip_grad_norm_(params, max_norm)
    optimizer.step()
    return norm


def _step_divided(
    optimizer: torch.optim.Optimizer, gradients: list[Tensor], divisor: Tensor
) -> None:
    """Take one optimizer step with gradients that are divided by a scalar first.

    The fused Adam divides in its own kernel, as for scaled losses.

    Args:
        optimizer: optimizer of the parameters that hold the gradients.
        gradients: their gradients.
        divisor: `()`.
    """
    if not optimizer.defaults.get("fused"):
        torch._foreach_div_(gradients, divisor)
        optimizer.step()
        return
    optimizer.grad_scale = divisor  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale  # type: ignore[attr-defined]


def clip_divisor(norms: Sequence[Tensor], max_norm: float) -> tuple[Tensor, Tensor]:
    """Return the norm of all gradients together, and max(1, norm / max_norm), as scalars.

    Compiled, this is one kernel; `clip_grad_norm_` takes seven.

    Args:
        norms: norm of each gradient.
        max_norm: largest norm of the gradients.
    """
    squares = norms[0].square()
    for other in norms[1:]:
        squares = squares + other.square()
    norm = squares.sqrt()
    return norm, ((norm + 1e-6) / max_norm).clamp(min=1.0)


@torch.no_grad()
def move_toward(target: Iterable[Tensor], online: Iterable[Tensor], share: float) -> None:
    """Update an exponential moving average of parameters: θ̄ ← θ̄ + share·(θ − θ̄).

    Args:
        target: averaged parameters θ̄, changed in place.
        online: current parameters θ.
        share: weight of the current parameters, in [0, 1].
    """
    torch._foreach_lerp_(list(target), list(online), share)


def percentile(ordered: Tensor, share: float) -> Tensor:
    """Return the quantile `share` in [0, 1] of the sorted values `(N,)`, linearly interpolated.

    Unlike `torch.quantile`, it works under `vmap` and does not synchronize with the device.
    """
    position = share * (ordered.shape[0] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[0] - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)


def all_finite(value: Any) -> bool:
    """Return whether every floating-point tensor in a nested container is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(all_finite(item) for item in value)
    return True


@dataclass
class RunningMeans:
    """Means of an agent's metrics since the last call of `take`; the sums stay on the device.

    Attributes:
        sums: sum of each metric.
        counts: number of values of each metric.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the metrics of one gradient step."""
        known = [name for name in metrics if name in self.sums]
        if known:  # one kernel for all sums
            torch._foreach_add_([self.sums[n] for n in known], [metrics[n] for n in known])
        for name, value in metrics.items():
            if name not in self.sums:
                self.sums[name] = value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means and reset the sums."""
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means
