"""Groups of environments that are reset and stepped together, here or in other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tdmpc2.common.interfaces import TaskEnv


class StepResult(NamedTuple):
    """Result of one decision in one environment.

    Attributes:
        obs: observation `(*obs_shape,)`.
        reward: reward, summed over the action repeat.
        done: whether the episode has ended.
        success: success after the last control step.
        success_ever: success after any control step of the episode.
    """

    obs: np.ndarray
    reward: float
    done: bool
    success: float
    success_ever: float


class EnvGroup(Protocol):
    """A group of environments that are reset and stepped together."""

    def __len__(self) -> int:
        """Return the number of environments."""
        ...

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Reset one environment per seed and return their observations `(N, *obs_shape)`."""
        ...

    def begin_step(self, actions: dict[int, np.ndarray]) -> Callable[[], dict[int, StepResult]]:
        """Start one decision in each environment that is a key of `actions`.

        Returns:
            A function that waits for the results and returns them. It must be called before any
            other method of the group.
        """
        ...

    def render(self, index: int) -> np.ndarray:
        """Return a frame `(H, W, 3)` uint8 of one environment."""
        ...

    def close(self) -> None:
        """Close the environments and end their processes."""
        ...


class SerialEnvs:
    """Environments in this process, stepped one after the other.

    Args:
        envs: environments with equal spaces.
    """

    def __init__(self, envs: Sequence[TaskEnv]) -> None:
        self.envs = list(envs)

    def __len__(self) -> int:
        """Return the number of environments."""
        return len(self.envs)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Reset the environments; see `EnvGroup.reset`."""
        return np.stack([self.envs[i].reset(seed=seed)[0] for i, seed in enumerate(seeds)])

    def begin_step(self, actions: dict[int, np.ndarray]) -> Callable[[], dict[int, StepResult]]:
        """Start a step; see `EnvGroup.begin_step`. The returned function does the work."""
        return lambda: {i: step_one(self.envs[i], action) for i, action in actions.items()}

    def render(self, index: int) -> np.ndarray:
        """Return a frame; see `EnvGroup.render`."""
        return np.asarray(self.envs[index].render())

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


def step_one(env: TaskEnv, action: np.ndarray) -> StepResult:
    """Take one decision in one environment."""
    obs, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated
    return StepResult(obs, float(reward), done, info["success"], info["success_ever"])
