"""Interfaces of environments, agents and replay buffers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    runtime_checkable,
)

import gymnasium
import numpy as np

if TYPE_CHECKING:  # environment processes do not import torch
    import torch
    from torch import Tensor, nn

    from tdmpc2.common.replay.types import Episode, Transition


SCHEDULES_OVER = 1 << 60
"""Number of decisions at which all schedules over decisions have reached their final values."""


class TaskEnv(gymnasium.Env, abc.ABC):
    """A single-task environment with action repeat and time limit built in.

    In addition to the rules of `gymnasium.Env`:

    - observations are flat float32 vectors (or uint8 pixels `(C, H, W)`);
    - actions are float32 in [-1, 1]; one `step` is one *decision*, that is
      `action_repeat` control steps of the simulator, rewards summed;
    - `truncated` is True on decision `episode_length`; `terminated` only in
      episodic tasks;
    - `info["success"]` is a float at every step (0.0 where a task has none), and
      `info["success_ever"]` its maximum over the episode's control steps so far;
    - all randomness comes from one generator of the environment:
      `reset(seed=k)` seeds it, `reset()` continues its sequence, and
      `generator_state` / `set_generator_state` read and restore its state. Restoring
      the state and calling `reset()` repeats the episode bit for bit.

    Attributes:
        action_repeat: control steps per decision.
        episode_length: time limit in decisions.
        frame_stack: number of frames in a pixel observation; 1 for state observations.
    """

    action_repeat: int
    episode_length: int
    frame_stack: int = 1

    def begin_step(
        self, action: np.ndarray
    ) -> Callable[[], tuple[np.ndarray, float, bool, bool, dict[str, Any]]]:
        """Start a decision and return a function that waits for its result, that of `step`.

        This implementation does the work when the function is called. Environments in other
        processes begin at once and work in parallel.
        """
        return lambda: self.step(action)  # type: ignore[return-value]

    @abc.abstractmethod
    def generator_state(self) -> Any:
        """Return the state of the generator (picklable: plain containers and arrays)."""

    @abc.abstractmethod
    def set_generator_state(self, state: Any) -> None:
        """Restore a state that `generator_state` returned."""


@dataclass(frozen=True)
class EnvSpec:
    """Shapes and other facts about the task or tasks of an agent.

    Attributes:
        obs_shape: `(O,)` for states, `(C, 64, 64)` for pixels; padded to the largest task.
        action_dim: A, the largest action dimension of the tasks.
        episode_lengths: episode length of each task, in decisions.
        action_repeats: control steps per decision of each task.
        action_dims: number of valid action dimensions of each task.
        task_names: names of the tasks; the position is the index of the task embedding.
        episodic: whether episodes can terminate.
        frame_stack: number of frames in an observation, for pixels.
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
        """Number of tasks; 1 for a single-task agent."""
        return len(self.task_names)

    @property
    def pixels(self) -> bool:
        """Whether observations are images."""
        return len(self.obs_shape) == 3


@dataclass(frozen=True)
class Counters:
    """Counters of a run, from which an agent computes how many updates are due.

    Attributes:
        decisions: decisions so far, including the current one.
        num_updates: gradient steps so far.
        episode_decisions: decisions of the current (or just ended) episode; of the longest of
            several environments.
        new_decisions: decisions since the previous event of this kind. Several environments make
            up to one each per event `decision`, and end their episodes in one event `episode_end`.
    """

    decisions: int
    num_updates: int
    episode_decisions: int
    new_decisions: int = 1


Event = Literal["decision", "episode_end"]


class ReplayBuffer(Protocol):
    """Methods of a replay buffer that the trainer uses; how to sample is up to the agents.

    Attributes:
        capacity: number of rows; an episode takes one more than it has transitions.
        num_added: number of episodes ever added.
    """

    capacity: int
    num_added: int

    @property
    def num_episodes(self) -> int:
        """Number of finished episodes in the buffer."""
        ...

    def add(self, episode: Episode) -> None:
        """Store a finished episode."""
        ...

    def append(self, transition: Transition, place: int = 0) -> None:
        """Store the next transition of the running episode of environment number `place`."""
        ...

    def finish(self, place: int = 0) -> None:
        """End the episode whose transitions `append` has stored."""
        ...

    def episodes(self, first: int) -> list[Episode]:
        """Return the finished episodes in the buffer, from number `first` of all ever added."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the buffer without its episodes."""
        ...

    def load_state_dict(self, state: dict[str, Any], episodes: Iterable[Episode]) -> None:
        """Restore a state that `state_dict` returned, and the episodes of that time."""
        ...


class FunctionSlot(NamedTuple):
    """An attribute that holds a function, through which its owner always calls it.

    Attributes:
        owner: object with the attribute.
        name: name of the attribute.
    """

    owner: Any
    name: str


@dataclass(frozen=True)
class Planning:
    """A function that uses the same weights many times per call.

    Attributes:
        function: the function.
        networks: networks that it uses.
        rows: number of rows per environment in the inputs of the networks.
        optimizers: optimizers that change the weights.
    """

    function: FunctionSlot
    networks: Sequence[nn.Module]
    rows: int
    optimizers: Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class WholeSteps:
    """Functions that execute a whole step on the device, without waiting for it.

    Their results depend on their arguments, on the generators, and on tensors that they change in
    place only.

    Attributes:
        functions: the functions.
        generators: generators that they sample from.
        optimizers: optimizers that they use.
    """

    functions: Sequence[FunctionSlot]
    generators: Sequence[torch.Generator]
    optimizers: Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Accelerable:
    """What `tdmpc2.acceleration.install` may replace. All functions are pure.

    Attributes:
        device: device on which the functions compute.
        compiled: functions to compile as a whole.
        pieces: functions to compile that are called repeatedly within a step, or outside of one.
            Only their results never are in the memory of CUDA graphs, which the next step
            overwrites.
        protected: steps that call these functions; called again without compilation if it fails.
        compiled_on: types of devices on which functions are compiled.
        networks: networks whose layers have native versions for CPUs.
        native_layers: `module:name` of the `kernels.NativeLayers` of these layers; None if there
            are none.
        gpu_layers: as `native_layers`, for GPUs.
        bf16_layers: as `native_layers`, with matrix multiplications in bfloat16, for agents that
            multiply in bfloat16. Used instead on CPUs where these kernels are fast.
        planning: a function that profits from blocked weights on CPUs; None if there is none.
        whole_steps: functions to record into CUDA graphs on a GPU; None if there are none.
    """

    device: torch.device
    compiled: Sequence[FunctionSlot] = ()
    pieces: Sequence[FunctionSlot] = ()
    protected: Sequence[FunctionSlot] = ()
    compiled_on: Sequence[str] = ("cpu", "cuda")
    networks: Sequence[nn.Module] = ()
    native_layers: str | None = None
    gpu_layers: str | None = None
    bf16_layers: str | None = None
    planning: Planning | None = None
    whole_steps: WholeSteps | None = None


class Accelerated(Protocol):
    """An agent or several agents with functions that can be accelerated."""

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced by compiled and native versions."""
        ...


@runtime_checkable
class Agent(Protocol):
    """Interface of a method to runners, training loop and sweeps.

    It is complete: nothing else is used of an agent. It is created as
    `Class(config, env, seed=seed, device=device)`; `tdmpc2.common.training.base_agent.BaseAgent`
    has defaults for all of it but `act` and `update`.

    Attributes:
        config_class: class of the hyperparameters, a frozen dataclass; its class method
            `make(**overrides)` returns a config.
        multitask: whether agents can learn several tasks from a dataset.
        micro_batches: whether updates can be divided (`tdmpc2.sharded_update`).
        seed_batch_class: `"module:Class"` that trains several seeds as one batch; None without.
        config: hyperparameters, with a field `buffer_size`, the rows of the replay buffer.
        num_envs: number of training environments.
        replay_length: transitions in a sampled sub-trajectory, or observations in a sequence.
        replay_visibility: `transition` if the agent also learns from the current episode, whose
            transitions are stored at once; `episode` if it learns from finished episodes only.
        updates_within_episodes: whether updates may be due before an episode ends.
        replay_across_episodes: whether sampled sequences may extend into the next episode.
        replay_priorities: `(alpha, beta)` of prioritized sampling; None for uniform sampling.
        seed_decisions: number of decisions at the start of a run that are uniform random, unless
            `seed_with_agent`. Updates begin with the last of them or later.
        seed_with_agent: whether the agent chooses the actions of the seed decisions.
    """

    config_class: ClassVar[type[Any]]
    multitask: ClassVar[bool]
    micro_batches: ClassVar[bool]
    seed_batch_class: ClassVar[str | None]
    config: Any
    num_envs: int
    replay_length: int
    replay_visibility: Literal["transition", "episode"]
    updates_within_episodes: bool
    replay_across_episodes: bool
    replay_priorities: tuple[float, float] | None
    seed_decisions: int
    seed_with_agent: bool

    @classmethod
    def gflop(cls, config: Any, obs_dim: int, action_dim: int) -> dict[str, float] | None:
        """Return the operations of `act` (`plan`) and `update` in GFLOP; None to count them.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.
        """
        ...

    @classmethod
    def updates_per_decision(cls, config: Any) -> float:
        """Return the mean number of updates per decision after the seed decisions."""
        ...

    def num_parameters(self) -> int:
        """Return the number of learned parameters."""
        ...

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of gradient steps to take after this event."""
        ...

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`.

        Args:
            obs: observations `(B, *obs_shape)`.
            first: `(B,)`, True where an episode begins; resets the planner's warm start there.
            explore: whether to add exploration noise.
            task: task indices `(B,)` of a multi-task agent, else None.
        """
        ...

    def seed_evaluation(self, seed: int) -> None:
        """Seed the planning noise of the next evaluation."""
        ...

    def follow_evaluation(self) -> None:
        """Change the parameters as an evaluation of all tasks in another process has done."""
        ...

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced by compiled and native versions."""
        ...

    def update(self, replay: Any) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay`; return scalar metrics on the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-exact resume needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        ...
