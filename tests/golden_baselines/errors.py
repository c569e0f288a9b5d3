"""Differences between this project's results and the recorded ones, by name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.golden_baselines.reader import GoldenBaseline


class Errors(dict[str, float]):
    """The largest error of each quantity; a name begins with `absolute/` or `relative/`.

    A NaN counts as an infinite error.
    """

    def absolute(self, name: str, ours: Tensor, recorded: Tensor) -> None:
        """Adds the largest absolute difference of any element."""
        self._add(f"absolute/{name}", _difference(ours, recorded).abs().max())

    def relative(self, name: str, ours: Tensor, recorded: Tensor) -> None:
        """Adds the largest difference of any element, as a fraction of the recorded element."""
        fraction = _difference(ours, recorded) / recorded.detach().double()
        self._add(f"relative/{name}", fraction.abs().max())

    def scaled(self, name: str, ours: Tensor, recorded: Tensor) -> None:
        """Adds the largest difference, as a fraction of the largest recorded element or of 1."""
        scale = recorded.detach().double().abs().max().clamp(min=1.0)
        self._add(f"relative/{name}", _difference(ours, recorded).abs().max() / scale)

    def norm(self, name: str, ours: list[Tensor], recorded: list[Tensor]) -> None:
        """Adds the norm of the difference of several arrays, as a fraction of their norm."""
        pairs = zip(ours, recorded, strict=True)
        difference = torch.cat([_difference(*pair).flatten() for pair in pairs])
        whole = torch.cat([x.detach().double().flatten() for x in recorded])
        self._add(f"relative/{name}", difference.norm() / whole.norm())

    def above(self, *, absolute: float, relative: float) -> dict[str, float]:
        """The errors that exceed the tolerance of their kind."""
        limits = {"absolute": absolute, "relative": relative}
        return {name: e for name, e in self.items() if e > limits[name.partition("/")[0]]}

    def _add(self, name: str, error: Tensor) -> None:
        value = float(error)
        self[name] = max(self.get(name, 0.0), math.inf if math.isnan(value) else value)


def _difference(ours: Tensor, recorded: Tensor) -> Tensor:
    """The difference in float64; dimensions of size 1 do not count.

    Raises:
        ValueError: the shapes differ.
    """
    ours, recorded = ours.detach(), recorded.detach()
    if ours.squeeze().shape != recorded.squeeze().shape:
        raise ValueError(f"shape {tuple(ours.shape)}, but {tuple(recorded.shape)} was recorded")
    return ours.double().to(recorded.device).reshape(recorded.shape) - recorded.double()


def errors_of_updates(golden: GoldenBaseline, agent: Any) -> Errors:
    """Runs all recorded updates in turn: losses, norms, gradients, and weights after each.

    Args:
        golden: the file.
        agent: with the weights from before the first update.

    Raises:
        ValueError: agent and file do not have the same parameters.
    """
    errors = Errors()
    for n in range(1, golden.num_updates + 1):
        for name, value in golden.update(agent, n).items():
            errors.relative(name, value, golden.expected(n, name))
        gradients, expected = golden.gradients_of(agent), golden.gradients(n)
        for network, names in _by_network(gradients, expected).items():
            pair = ([gradients[name] for name in names], [expected[name] for name in names])
            errors.norm(f"gradient of {network}", *pair)
        weights, expected = golden.weights_of(agent), golden.weights(after=n)
        for network, names in _by_network(weights, expected).items():
            for name in names:
                errors.absolute(f"weights of {network}", weights[name], expected[name])
    return errors


def _by_network(ours: dict[str, Tensor], recorded: dict[str, Tensor]) -> dict[str, list[str]]:
    """Names of parameters by network, which is the first component of the name.

    Raises:
        ValueError: a parameter has no counterpart.
    """
    if set(ours) != set(recorded):
        raise ValueError(f"parameters without counterpart: {sorted(set(ours) ^ set(recorded))}")
    networks: dict[str, list[str]] = {}
    for name in ours:
        networks.setdefault(name.partition(".")[0], []).append(name)
    return networks
