"""What is kept of playing, and what learning is given of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Sub-trajectories of L transitions, time first.

    Attributes:
        obs: `(L + 1, B, *obs_shape)`.
        action: `(L, B, A)`; `action[t]` leads from `obs[t]` to `obs[t + 1]`.
        reward: `(L, B)`.
        terminated: `(L, B)`, 1 where `obs[t + 1]` ended the episode for good.
        task: `(B,)` task indices, or None.
        weight: `(B,)` importance weights of prioritized sampling, or None.
        start: `(B,)` rows where the sub-trajectories start.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor | None = None
    weight: Tensor | None = None
    start: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; to a GPU it goes through pinned memory, without waiting."""
        if self.obs.device.type == device.type:
            return self
        there = {name: x for name, x in self._asdict().items() if x is not None}
        return Batch(**{name: to_device(x, device) for name, x in there.items()})


class Sequences(NamedTuple):
    """Stretches of L observations from streams of episodes, time first.

    Attributes:
        obs: `(L, B, *obs_shape)`.
        action: `(L, B, A)`; `action[t]` led to `obs[t]`, 0 where an episode begins.
        reward: `(L, B)`, that came with `obs[t]`; 0 where an episode begins.
        first: `(L, B)`, 1 where an episode or the stretch begins.
        terminated: `(L, B)`, 1 where `obs[t]` ended its episode for good.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    first: Tensor
    terminated: Tensor

    def to(self, device: torch.device) -> Sequences:
        """The batch on a device; see `Batch.to`."""
        if self.obs.device.type == device.type:
            return self
        return Sequences(*(to_device(x, device) for x in self))


@dataclass
class Episode:
    """One finished episode of T transitions, as NumPy arrays.

    Attributes:
        obs: `(T + 1, *obs_shape)`; of stacked frames, the newest of each row is enough.
        action: `(T, A)`.
        reward: `(T,)`.
        terminated: whether the last transition ended the episode for good.
        task: task index (0 in single-task learning).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool = False
    task: int = 0

    def __len__(self) -> int:
        """Transitions."""
        return len(self.reward)


class Transition(NamedTuple):
    """One decision and what came of it.

    Attributes:
        obs: `(*obs_shape,)`, what was seen.
        action: `(A,)`, what was done.
        reward: of the decision.
        next_obs: `(*obs_shape,)`, what was seen then.
        terminated: whether that ended the episode for good.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: float
    next_obs: np.ndarray
    terminated: bool


def to_device(x: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """An array of the CPU on a device; to a GPU it goes through pinned memory, without waiting."""
    pin, x = device.type == "cuda", torch.as_tensor(x)
    return (x.pin_memory() if pin else x).to(device, non_blocking=pin)
