"""Weights laid out as the CPU's library of products wants them, for planning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tdmpc2.kernels import Blocked

LARGEST, SMALLEST = 256, 64  # rows; larger blocks leave the second-level cache, smaller ones lag


class BlockedWeights:
    """Blocked copies of the weights that one planning call uses again and again.

    A library rearranges a matrix for each product; planning multiplies by the same ones some 18
    times, and by each of them more often than they change. The copies take part only inside
    `in_use`, and are renewed there when a weight has changed.

    Args:
        layers: modules with an attribute `blocked`; for each its weight `(O, I)` or `(K, O, I)`,
            and its number of rows per environment.
    """

    def __init__(self, layers: dict[nn.Module, tuple[nn.Parameter, int]]) -> None:
        self._weights: dict[nn.Module, nn.Parameter] = {}
        self._blocked: dict[nn.Module, Blocked] = {}
        for layer, (weight, rows) in layers.items():
            block = block_of(rows, torch.get_num_threads())
            if block == 0:
                continue
            num, out_dim, in_dim = _as_ensemble(weight).shape
            size = torch.ops.tdmpc2.blocked_size(out_dim, in_dim, block)
            self._weights[layer] = weight
            self._blocked[layer] = Blocked(torch.zeros(num, size), block)
        self._version: tuple[int, ...] = ()

    @staticmethod
    def possible() -> bool:
        """Whether the kernel is loaded, and torch's library of products takes blocked weights."""
        return hasattr(torch.ops.tdmpc2, "dense") and torch.ops.tdmpc2.can_multiply()

    def forget(self) -> None:
        """Has the copies renewed: after steps of the fused optimizer, which leave no trace."""
        self._version = ()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the layers have their blocked weights at hand, as they are now."""
        version = tuple(weight._version for weight in self._weights.values())
        if version != self._version:
            for layer, weight in self._weights.items():
                blocked, block = self._blocked[layer]
                torch.ops.tdmpc2.block_(blocked, _as_ensemble(weight.detach()), block)
            self._version = version
        try:
            for layer, blocked in self._blocked.items():
                layer.blocked = blocked
            yield
        finally:
            for layer in self._blocked:
                layer.blocked = None


def block_of(rows: int, threads: int) -> int:
    """Rows to multiply at a time: the largest equal share that suits; 0 if none does.

    Args:
        rows: in all.
        threads: each of which has a block of its own.
    """
    largest = min(LARGEST, rows // threads)
    return next((size for size in range(largest, SMALLEST - 1, -1) if rows % size == 0), 0)


def _as_ensemble(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 3 else weight[None]
