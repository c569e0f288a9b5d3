"""Weights laid out as the CPU's library of products wants them, for planning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class PackedWeights:
    """Packed copies of the weights that one planning call uses again and again.

    MKL rearranges a matrix for each product; planning multiplies by the same ones some 18 times,
    and by each of them more often than they change. The copies take part only inside `in_use`,
    and are renewed there when a weight has changed.

    Args:
        layers: modules with a `weight` `(O, I)` or `(K, O, I)` and a buffer `packed`.
    """

    def __init__(self, layers: dict[nn.Module, nn.Parameter]) -> None:
        self._layers = layers
        self._packed: dict[nn.Module, Tensor] = {}
        for layer, weight in layers.items():
            num, out_dim, in_dim = _as_ensemble(weight).shape
            size = torch.ops.tdmpc2.packed_size(out_dim, in_dim)
            self._packed[layer] = torch.zeros(num, size)
        self._version: tuple[int, ...] = ()

    @staticmethod
    def possible() -> bool:
        """Whether the kernel is loaded, and MKL is what torch multiplies float32 with."""
        loaded = hasattr(torch.ops.tdmpc2, "dense")
        plain = torch.get_float32_matmul_precision() == "highest"
        return loaded and plain and torch.ops.tdmpc2.has_packing()

    def forget(self) -> None:
        """Has the copies renewed: after steps of the fused optimiser, which leave no trace."""
        self._version = ()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the layers have their packed weights at hand, as they are now."""
        version = tuple(weight._version for weight in self._layers.values())
        if version != self._version:
            for layer, weight in self._layers.items():
                torch.ops.tdmpc2.pack_(self._packed[layer], _as_ensemble(weight.detach()))
            self._version = version
        try:
            for layer, packed in self._packed.items():
                layer.packed = packed
            yield
        finally:
            for layer in self._packed:
                layer.packed = None


def _as_ensemble(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 3 else weight[None]
