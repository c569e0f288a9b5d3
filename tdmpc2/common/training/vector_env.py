"""Several environments that are stepped together, in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tdmpc2.common.interfaces import TaskEnv


class StepResult(NamedTuple):
    """What one environment answered to one action.

    Attributes:
        obs: `(*obs_shape,)`.
        reward: of the decision.
        done: whether the episode is over.
        success: after the last control step.
        success_ever: after any control step of the episode.
    """

    obs: np.ndarray
    reward: float
    done: bool
    success: float
    success_ever: float


class EnvGroup(Protocol):
    """Environments that are reset and stepped together."""

    def __len__(self) -> int:
        """Number of environments."""
        ...

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Starts an episode in each of the first environments, one per seed; `(N, *obs_shape)`."""
        ...

    def begin_step(self, actions: dict[int, np.ndarray]) -> Callable[[], dict[int, StepResult]]:
        """Starts one decision in each environment that `actions` names.

        Returns:
            Waits for the outcomes and returns them; to be called before anything else is asked.
        """
        ...

    def render(self, index: int) -> np.ndarray:
        """A frame `(H, W, 3)` uint8 of one environment."""
        ...

    def close(self) -> None:
        """Ends whatever runs for the group."""
        ...


class SerialEnvs:
    """Environments of this process, stepped one after the other.

    Args:
        envs: all with the same spaces.
    """

    def __init__(self, envs: Sequence[TaskEnv]) -> None:
        self.envs = list(envs)

    def __len__(self) -> int:
        """Number of environments."""
        return len(self.envs)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """See `EnvGroup.reset`."""
        return np.stack([self.envs[i].reset(seed=seed)[0] for i, seed in enumerate(seeds)])

    def begin_step(self, actions: dict[int, np.ndarray]) -> Callable[[], dict[int, StepResult]]:
        """See `EnvGroup.begin_step`; the work is done when the outcomes are asked for."""
        return lambda: {i: step_one(self.envs[i], action) for i, action in actions.items()}

    def render(self, index: int) -> np.ndarray:
        """See `EnvGroup.render`."""
        return np.asarray(self.envs[index].render())

    def close(self) -> None:
        """See `EnvGroup.close`."""
        for env in self.envs:
            env.close()


def step_one(env: TaskEnv, action: np.ndarray) -> StepResult:
    """One decision in one environment."""
    obs, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated
    return StepResult(obs, float(reward), done, info["success"], info["success_ever"])
