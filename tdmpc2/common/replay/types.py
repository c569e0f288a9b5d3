"""Types of experience: transitions, episodes, and the batches that are sampled from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError


class ShortEpisodesError(UserError, ValueError):
    """A replay buffer holds nothing as long as what it samples."""


def check_length(length: int, own: int) -> None:
    """Raise a `UserError` if an agent samples another length than its buffer was made for."""
    require(
        length == own,
        f"replay.sample: length {length}, but this buffer samples {own}, the agent's replay_length",
    )


class Batch(NamedTuple):
    """Batch of B sub-trajectories of L transitions; the first dimension is time.

    Attributes:
        obs: `(L + 1, B, *obs_shape)`.
        action: `(L, B, A)`; `action[t]` leads from `obs[t]` to `obs[t + 1]`.
        reward: `(L, B)`.
        terminated: `(L, B)`, 1 where the task ended the episode at `obs[t + 1]` (no time limit).
        task: task indices `(B,)`, or None.
        weight: importance weights `(B,)` of prioritized sampling, or None.
        start: rows `(B,)` of the replay buffer where the sub-trajectories start.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor | None = None
    weight: Tensor | None = None
    start: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; the copy to a GPU is asynchronous, from pinned memory."""
        if self.obs.device.type == device.type:
            return self
        present = {name: x for name, x in self._asdict().items() if x is not None}
        return Batch(**{name: to_device(x, device) for name, x in present.items()})


class Sequences(NamedTuple):
    """Batch of B sequences of L observations that may span several episodes; time comes first.

    Attributes:
        obs: `(L, B, *obs_shape)`.
        action: `(L, B, A)`; `action[t]` led to `obs[t]`; 0 where an episode begins.
        reward: `(L, B)`; `reward[t]` was received with `obs[t]`; 0 where an episode begins.
        first: `(L, B)`, 1 where an episode or the sequence begins.
        terminated: `(L, B)`, 1 where the task ended the episode at `obs[t]` (no time limit).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    first: Tensor
    terminated: Tensor

    def to(self, device: torch.device) -> Sequences:
        """Return the batch on a device; see `Batch.to`."""
        if self.obs.device.type == device.type:
            return self
        return Sequences(*(to_device(x, device) for x in self))


@dataclass
class Episode:
    """One finished episode of T transitions, as NumPy arrays.

    Attributes:
        obs: `(T + 1, *obs_shape)`; of stacked frames, the newest frame of each row suffices.
        action: `(T, A)`.
        reward: `(T,)`.
        terminated: whether the task ended the episode (False: the time limit did).
        task: task index; 0 for a single task.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool = False
    task: int = 0

    def __len__(self) -> int:
        """Return the number of transitions T."""
        return len(self.reward)


class Transition(NamedTuple):
    """One decision and its result.

    Attributes:
        obs: observation `(*obs_shape,)`.
        action: action `(A,)`.
        reward: reward, summed over the action repeat.
        next_obs: next observation `(*obs_shape,)`.
        terminated: whether the task ended the episode here (a time limit does not count).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: float
    next_obs: np.ndarray
    terminated: bool


def to_device(x: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Copy a CPU array to a device; the copy to a GPU is asynchronous, from pinned memory."""
    pin, x = device.type == "cuda", torch.as_tensor(x)
    return (x.pin_memory() if pin else x).to(device, non_blocking=pin)
