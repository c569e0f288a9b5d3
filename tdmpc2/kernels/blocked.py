"""Blocked weights for planning: copies in the layout of the CPU's matrix multiplication library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from tdmpc2.kernels import Blocked

# Rows per block: larger blocks do not fit into the second-level cache, smaller ones are slower.
LARGEST, SMALLEST = 256, 64


class BlockedWeights:
    """Blocked copies of the weights that a planning call uses repeatedly.

    The library rearranges a matrix for every multiplication. A planning call multiplies by the
    same weights about 18 times, and weights change less often than they are used. The copies are
    used only within `in_use`, which first updates them if a weight has changed.

    Args:
        layers: modules with a `weight` `(O, I)` or `(K, O, I)`, which receive an attribute
            `blocked`.
        rows: number of their input rows per environment.
    """

    attribute = "blocked"

    def __init__(self, layers: Iterable[Any], rows: int) -> None:
        self._copies: dict[Any, Any] = {}
        self._version: tuple[int, ...] = ()
        for layer in layers:
            copy = self._allocate(as_layers(layer.weight.detach()), rows)
            if copy is not None:  # otherwise the layer keeps its usual weights
                self._copies[layer] = copy
                setattr(layer, self.attribute, None)

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
        version = tuple(layer.weight._version for layer in self._copies)
        if version != self._version:
            for layer, copy in self._copies.items():
                self._update(copy, as_layers(layer.weight.detach()))
            self._version = version
        try:
            for layer, copy in self._copies.items():
                setattr(layer, self.attribute, copy)
            yield
        finally:
            for layer in self._copies:
                setattr(layer, self.attribute, None)

    def _allocate(self, weight: Tensor, rows: int) -> Any:
        """Return a copy without content for weights `(K, O, I)`; None if rows do not suit."""
        block = block_of(rows, torch.get_num_threads())
        if block == 0:
            return None
        num, out_dim, in_dim = weight.shape
        size = torch.ops.tdmpc2.blocked_size(out_dim, in_dim, block)
        return Blocked(torch.zeros(num, size), block)

    def _update(self, copy: Any, weight: Tensor) -> None:
        """Write weights `(K, O, I)` to a copy."""
        torch.ops.tdmpc2.block_(copy.weight, weight, copy.block)


def block_of(rows: int, threads: int) -> int:
    """Return the number of rows per block, or 0 if none is suitable.

    The largest divisor of `rows` in 64..256 that leaves at least one block per thread.

    Args:
        rows: number of input rows.
        threads: number of threads; each multiplies its own blocks.
    """
    largest = min(LARGEST, rows // threads)
    return next((size for size in range(largest, SMALLEST - 1, -1) if rows % size == 0), 0)


def as_layers(weight: Tensor) -> Tensor:
    """Return the weights `(K, O, I)` of K layers; K = 1 for a single one."""
    return weight if weight.dim() == 3 else weight[None]
