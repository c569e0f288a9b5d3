"""Observations of several frames, each frame kept once: which rows make up an observation."""

from __future__ import annotations

import torch
from torch import Tensor


class FrameRows:
    """The rows whose frames make up the observation of a row.

    Row t of an episode is seen as frames max(t − k + 1, 0) … t, oldest first: at the
    beginning the first frame stands for those before it.

    Args:
        capacity: rows of the replay buffer, a ring.
        num_frames: k.
        device: of the replay buffer.
    """

    def __init__(self, capacity: int, num_frames: int, device: torch.device) -> None:
        self.capacity, self.num_frames = capacity, num_frames
        self._back = torch.arange(num_frames - 1, -1, -1, device=device)
        # How far back its episode reaches from each row, as far as it matters.
        self._reach = torch.zeros(capacity, dtype=torch.uint8, device=device)

    def add(self, rows: Tensor) -> None:
        """Notes that these rows `(T + 1,)` hold an episode, in order."""
        age = torch.arange(len(rows), device=rows.device)
        self._reach[rows] = age.clamp(max=self.num_frames - 1).to(torch.uint8)

    def of(self, rows: Tensor) -> Tensor:
        """Rows of the frames `(..., k)` for rows `(...,)`."""
        back = torch.minimum(self._back, self._reach[rows].long()[..., None])
        return (rows[..., None] - back) % self.capacity
