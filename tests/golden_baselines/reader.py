"""Reads one golden file of a baseline: arrays recorded from its official implementation."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.interfaces import EnvSpec

DATA = Path(__file__).parents[1] / "data"


class GoldenBaseline(ABC):
    """The arrays of one golden file, and an agent with the recorded weights.

    Args:
        device: of every tensor and of the agent.

    Attributes:
        file: name of the file in `tests/data`.
        num_updates: number of recorded consecutive updates.
        arrays: all recorded arrays.
        raw: the recorded configuration.
    """

    file: ClassVar[str]
    num_updates: ClassVar[int]

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        with np.load(DATA / f"{self.file}.npz") as arrays:
            self.arrays = dict(arrays)
        self.raw: dict[str, Any] = json.loads((DATA / f"{self.file}.json").read_text())

    def __call__(self, key: str) -> Tensor:
        """An array as a tensor; float64 becomes float32."""
        x = torch.from_numpy(np.asarray(self.arrays[key])).to(self.device)
        return x.float() if x.dtype == torch.float64 else x

    def has(self, key: str) -> bool:
        """Whether the file holds an array."""
        return key in self.arrays

    def env(self, obs_dim: int) -> EnvSpec:
        """Shapes of the recorded task."""
        action_dim = self.raw["action_dim"]
        return EnvSpec((obs_dim,), action_dim, (500,), (2,), (action_dim,), ("task",))

    def renamed(self, prefix: str) -> dict[str, Tensor]:
        """The arrays under a prefix, in this project's names and layout.

        Raises:
            KeyError: an official name has no counterpart.
        """
        keys = [key for key in self.arrays if key.startswith(prefix)]
        return dict(self._converted(key.removeprefix(prefix), self(key)) for key in keys)

    def weights(self, after: int = 0) -> dict[str, Tensor]:
        """All recorded weights after some number of updates, as `weights_of` names them."""
        return self.renamed(f"update{after}/state_dict/" if after else "state_dict/")

    def expected(self, n: int, name: str) -> Tensor:
        """The recorded loss, norm or priority of the n-th update."""
        return self(f"update{n}/info/{name}")

    def gradients(self, n: int) -> dict[str, Tensor]:
        """The recorded gradients of the n-th update, by parameter; empty if there are none."""
        return {}

    def gradients_of(self, agent: Any) -> dict[str, Tensor]:
        """What `gradients` returns, of the agent's last update."""
        return {}

    @abstractmethod
    def agent(self, after: int = 0) -> Any:
        """An agent with the recorded weights after some number of updates."""

    @abstractmethod
    def update(self, agent: Any, n: int) -> dict[str, Tensor]:
        """Runs the n-th update with the recorded batch and noise.

        Returns:
            The agent's losses, norms and priorities, in the names that `expected` takes.
        """

    @abstractmethod
    def weights_of(self, agent: Any) -> dict[str, Tensor]:
        """All parameters of an agent, target networks included."""

    @abstractmethod
    def _converted(self, key: str, x: Tensor) -> tuple[str, Tensor]:
        """This project's name and layout of an official weight.

        Raises:
            KeyError: the name has no counterpart.
        """
