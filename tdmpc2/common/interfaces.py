"""The interfaces every agent and every environment of the suite keeps."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import gymnasium
import numpy as np

if TYPE_CHECKING:  # environment processes need no torch
    from torch import Tensor

    from tdmpc2.common.replay.types import Episode, Transition


class TaskEnv(gymnasium.Env, abc.ABC):
    """A single-task environment with action repeat and time limit built in.

    Beyond `gymnasium.Env`, an adapter keeps this contract:

    - observations are flat float32 vectors (or uint8 pixels `(C, H, W)`);
    - actions are float32 in [-1, 1]; one `step` is one *decision*, that is
      `action_repeat` control steps of the simulator, rewards summed;
    - `truncated` is True on decision `episode_length`; `terminated` only in
      episodic tasks;
    - `info["success"]` is a float at every step (0.0 where a task has none), and
      `info["success_ever"]` its maximum over the episode's control steps so far;
    - every random draw comes from one generator owned by the environment:
      `reset(seed=k)` re-seeds it, `reset()` goes on drawing from it, and
      `generator_state` / `set_generator_state` read and restore it. Restoring
      the state and calling `reset()` repeats the episode bit for bit.
    """

    action_repeat: int
    episode_length: int
    frame_stack: int = 1  # frames in an observation, of pixels

    def begin_step(
        self, action: np.ndarray
    ) -> Callable[[], tuple[np.ndarray, float, bool, bool, dict[str, Any]]]:
        """Starts a decision; what is returned waits for its outcome, that of `step`.

        Here the work is done when the outcome is asked for; environments in other processes
        do it meanwhile.
        """
        return lambda: self.step(action)  # type: ignore[return-value]

    @abc.abstractmethod
    def generator_state(self) -> Any:
        """State of the environment's generator (picklable, plain containers and arrays)."""

    @abc.abstractmethod
    def set_generator_state(self, state: Any) -> None:
        """Restores what `generator_state` returned."""


@dataclass(frozen=True)
class EnvSpec:
    """What an agent must know of the task (or tasks) it learns.

    Attributes:
        obs_shape: `(O,)` for states, `(C, 64, 64)` for pixels; padded to the largest task.
        action_dim: A, the largest action dimension over the tasks.
        episode_lengths: T in decisions, one per task.
        action_repeats: control steps per decision, one per task.
        action_dims: valid action dimensions, one per task.
        task_names: one per task; their order is the embedding index.
        episodic: whether episodes can terminate.
        frame_stack: frames that `obs_shape` holds, for pixels.
    """

    obs_shape: tuple[int, ...]
    action_dim: int
    episode_lengths: tuple[int, ...]
    action_repeats: tuple[int, ...]
    action_dims: tuple[int, ...]
    task_names: tuple[str, ...]
    episodic: bool = False
    frame_stack: int = 1

    @property
    def num_tasks(self) -> int:
        """Number of tasks; 1 for single-task learning."""
        return len(self.task_names)

    @property
    def pixels(self) -> bool:
        """Whether observations are images."""
        return len(self.obs_shape) == 3


@dataclass(frozen=True)
class Counters:
    """Where a run stands when it asks an agent how many updates are due.

    Attributes:
        decisions: decisions taken so far, the one just taken included.
        num_updates: gradient steps done so far.
        episode_decisions: decisions of the episode in flight (or just ended).
    """

    decisions: int
    num_updates: int
    episode_decisions: int


Event = Literal["decision", "episode_end"]


class ReplayBuffer(Protocol):
    """What the trainer asks of a replay memory; what agents sample from it is between them."""

    num_added: int

    @property
    def num_episodes(self) -> int:
        """Finished episodes held."""
        ...

    def add(self, episode: Episode) -> None:
        """Stores a finished episode."""
        ...

    def append(self, transition: Transition, place: int = 0) -> None:
        """Stores the next decision of the episode that an environment plays."""
        ...

    def finish(self, place: int = 0) -> None:
        """Ends the episode of which `append` stored the decisions."""
        ...

    def episodes(self, first: int) -> list[Episode]:
        """The held finished episodes from the `first`-th ever added on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything but the episodes."""
        ...

    def load_state_dict(self, state: dict[str, Any], episodes: Iterable[Episode]) -> None:
        """Restores what `state_dict` returned, with the episodes held then."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What the trainer asks of a method (TD-MPC2, SAC, TD-MPC, DreamerV3).

    Attributes:
        num_envs: environments that it acts in at a time.
        replay_length: transitions of a sampled sub-trajectory, or observations of a sequence.
        replay_visibility: whether it learns from unfinished episodes, transition by transition,
            or from finished ones only.
        replay_across_episodes: whether sequences run on into the next episode.
        replay_priorities: `(alpha, beta)` of prioritized sampling; uniform if None.
        seed_decisions: decisions number 0 to this are uniform random.
    """

    num_envs: int
    replay_length: int
    replay_visibility: Literal["transition", "episode"]
    replay_across_episodes: bool
    replay_priorities: tuple[float, float] | None
    seed_decisions: int

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Gradient steps to take now."""
        ...

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)` for observations `(B, *obs_shape)`; `first (B,)` resets warm starts."""
        ...

    def seed_evaluation(self, seed: int) -> None:
        """Re-seeds the noise of evaluation: each evaluation has its own."""
        ...

    def compile(self, on_failure: Callable[[], None] | None = None) -> None:
        """Compiles what can be from now on; `on_failure` is called if that has to be given up."""
        ...

    def update(self, replay: Any) -> dict[str, Tensor]:
        """One gradient step on a batch drawn from `replay`; scalar metrics on the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...
