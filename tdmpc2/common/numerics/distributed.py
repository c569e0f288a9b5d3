"""Several processes that train one agent together, as `torchrun` starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from tdmpc2.common.system.errors import UserError

_PATIENCE = timedelta(days=1)  # one process evaluates while the others wait


class World:
    """The processes of a run: each holds a copy of the agent, and takes a share of each batch.

    Attributes:
        rank: of this process, from 0; the first writes the records.
        size: number of processes.
        device: where this one computes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one type by their means over the processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes `(size · B, …)`, in the order of their ranks."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers, which all ask at the same place."""
        if self.size == 1:
            return number
        shared = torch.tensor(int(number), device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()


def _world_size() -> int:
    """How many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The world that `torchrun` has started this process in, or one of its own.

    Args:
        device: where this process computes.
    """
    size = _world_size()
    if size == 1:
        yield World()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of the machine.

    Raises:
        UserError: fewer GPUs than processes.
    """
    if device.type != "cuda" or _world_size() == 1:
        return device
    rank = int(os.environ["LOCAL_RANK"])
    if rank >= torch.cuda.device_count():
        raise UserError(
            f"process {rank + 1} of this machine has no GPU of its own; give torchrun "
            f"--nproc-per-node={torch.cuda.device_count()}, or say device=cpu"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
