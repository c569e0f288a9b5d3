"""Data-parallel training of one agent in several processes, started by `torchrun`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from tdmpc2.common.system.errors import UserError

_TIMEOUT = timedelta(days=1)  # the other processes wait while the first one evaluates
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""In messages of torch, that another process has ended."""


class World:
    """The processes of a run. Each holds a copy of the agent and computes a shard of each batch.

    Args:
        rank: rank of this process, from 0; rank 0 evaluates, writes the records and saves.
        size: number of processes.
        device: device of this process.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def first(self) -> bool:
        """Whether this process has rank 0, which writes the records."""
        return self.rank == 0

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their means over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _connected():
            dist.all_reduce(flat)
        flat /= self.size
        means = flat.split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows `(B, …)` of all processes as `(size · B, …)`, in the order of ranks."""
        if self.size == 1:
            return x
        shards = [torch.empty_like(x) for _ in range(self.size)]
        with _connected():
            dist.all_gather(shards, x.contiguous())
        return torch.cat(shards)

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all processes; a collective operation."""
        if self.size == 1:
            return number
        shared = torch.tensor(int(number), device=self.device)
        with _connected():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            return int(shared)

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.size > 1:
            with _connected():
                dist.barrier()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Enter a collective operation.

    Raises:
        UserError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _LOST):
            raise
        raise UserError(
            "another process of this run has ended; its message says why. The same command "
            "resumes the run"
        ) from error


def _world_size() -> int:
    """Return the number of processes that `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the process group that `torchrun` has started; without it, a world of one process.

    Args:
        device: device of this process.
    """
    size = _world_size()
    if size == 1:
        yield World()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: on a machine with several GPUs, the one of its rank.

    Raises:
        UserError: the machine has fewer GPUs than processes.
    """
    if device.type != "cuda" or _world_size() == 1:
        return device
    rank = int(os.environ["LOCAL_RANK"])
    if rank >= torch.cuda.device_count():
        raise UserError(
            f"process {rank + 1} of this machine has no GPU of its own; start torchrun with "
            f"--nproc-per-node={torch.cuda.device_count()}, or use device=cpu"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
