"""Frame stacking in the replay buffer: each frame is stored once, in one row."""

from __future__ import annotations

import torch
from torch import Tensor


class FrameRows:
    """Index of the rows whose frames form the observation of a row.

    The observation of step t of an episode consists of frames max(t − i, 0) for i = k − 1 … 0,
    oldest first: at the beginning the first frame is repeated.

    Args:
        capacity: number of rows of the replay buffer, which is a ring.
        num_frames: k, number of frames in an observation.
        device: device of the replay buffer.
    """

    def __init__(self, capacity: int, num_frames: int, device: torch.device) -> None:
        self.capacity, self.num_frames = capacity, num_frames
        self._back = torch.arange(num_frames - 1, -1, -1, device=device)
        # Number of earlier rows of the same episode, at most k − 1.
        self._reach = torch.zeros(capacity, dtype=torch.uint8, device=device)

    def add(self, rows: Tensor) -> None:
        """Register the rows `(T + 1,)` of a new episode, in order."""
        age = torch.arange(len(rows), device=rows.device)
        self._reach[rows] = age.clamp(max=self.num_frames - 1).to(torch.uint8)

    def of(self, rows: Tensor) -> Tensor:
        """Return the rows of the frames `(..., k)` for the observations of rows `(...,)`."""
        back = torch.minimum(self._back, self._reach[rows].long()[..., None])
        return (rows[..., None] - back) % self.capacity
