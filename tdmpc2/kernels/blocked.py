"""Blocked weights for planning: copies in the layout of the CPU's matrix multiplication library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tdmpc2.kernels import Blocked

# Rows per block: larger blocks do not fit into the second-level cache, smaller ones are slower.
LARGEST, SMALLEST = 256, 64


class BlockedWeights:
    """Blocked copies of the weights that a planning call uses repeatedly.

    The library rearranges a matrix for every multiplication. A planning call multiplies by the
    same weights about 18 times, and weights change less often than they are used. The copies are
    used only within `in_use`, which first updates them if a weight has changed.

    Args:
        layers: modules with an attribute `blocked`, and for each its weight `(O, I)` or
            `(K, O, I)` and its number of input rows per environment.
    """

    def __init__(self, layers: dict[nn.Module, tuple[nn.Parameter, int]]) -> None:
        self._weights: dict[nn.Module, nn.Parameter] = {}
        self._blocked: dict[nn.Module, Blocked] = {}
        for layer, (weight, rows) in layers.items():
            block = block_of(rows, torch.get_num_threads())
            if block == 0:  # this layer keeps its usual weights
                continue
            num, out_dim, in_dim = _as_ensemble(weight).shape
            size = torch.ops.tdmpc2.blocked_size(out_dim, in_dim, block)
            self._weights[layer] = weight
            self._blocked[layer] = Blocked(torch.zeros(num, size), block)
        self._version: tuple[int, ...] = ()

    @staticmethod
    def possible() -> bool:
        """Return whether the kernels are loaded and torch's library supports blocked weights."""
        return hasattr(torch.ops.tdmpc2, "dense") and torch.ops.tdmpc2.can_multiply()

    def forget(self) -> None:
        """Mark the copies as stale.

        Needed after a step of the fused optimizer, which does not change the version counters of
        the weights.
        """
        self._version = ()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the layers up-to-date blocked weights in this context."""
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
    """Return the number of rows per block, or 0 if none is suitable.

    The largest divisor of `rows` in 64..256 that leaves at least one block per thread.

    Args:
        rows: number of input rows.
        threads: number of threads; each multiplies its own blocks.
    """
    largest = min(LARGEST, rows // threads)
    return next((size for size in range(largest, SMALLEST - 1, -1) if rows % size == 0), 0)


def _as_ensemble(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 3 else weight[None]
