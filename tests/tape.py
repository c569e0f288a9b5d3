"""A recording of a step that a CPU can replay, in place of a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default")


class Tape(TorchDispatchMode):
    """Replays recorded operations on the same tensors, as a CUDA graph does.

    Recording executes the operations too, so that the first replay does nothing. Operations that
    read values to the host, which a CUDA graph cannot contain, raise a RuntimeError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []
        self.generators: Sequence[Generator] = ()
        self.fresh = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in READS:
            raise RuntimeError(f"{func} reads a value to the host")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, *tree_map(_alias, (args, kwargs or {}, result))))
        return result

    def record(self, step: Callable[[], Any], generators: Sequence[Generator]) -> Any:
        self.generators = generators
        with self:
            return step()

    @torch.no_grad()
    def replay(self) -> None:
        if self.fresh:
            self.fresh = False
            return
        for func, args, kwargs, recorded in self.operations:
            again = func(*args, **kwargs)
            for place, value in zip(tree_leaves(recorded), tree_leaves(again), strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


def _alias(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
