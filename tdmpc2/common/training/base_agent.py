"""Base classes of agents and their configs; a method needs no more than to extend them."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.common.interfaces import Accelerable, Counters, EnvSpec, Event
from tdmpc2.common.numerics.optim import Draws
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.system.config_checks import (
    DECISIONS,
    ROWS,
    Settings,
    require_known,
    setting,
)


@dataclass(frozen=True)
class BaseConfig(Settings):
    """Hyperparameters that the training loop needs of every method."""

    buffer_size: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    seed_decisions: int = setting(
        1_000, "decisions with uniform random actions before the first update", DECISIONS
    )

    @classmethod
    def make(cls, **overrides: Any) -> Self:
        """Return the config with overrides.

        Raises:
            UserError: a field is unknown, or a value is out of range.
        """
        require_known(cls, overrides)
        return cls(**overrides)


class BaseAgent(abc.ABC):
    """An agent with the defaults of the `Agent` interface.

    A subclass creates its networks and optimizers in `__init__`, after `super().__init__(...)`,
    and implements `act` and `update`. By default it learns from finished episodes, one update per
    decision, and `state_dict` covers every attribute that is a module, an optimizer or a noise
    source, and the attributes named in `state_fields`.

    Args:
        config: hyperparameters.
        env: shapes, tasks and episode lengths of the environment.
        seed: seed of the parameters and of all noise.
        device: device of parameters and noise.

    Attributes:
        config_class: class of the hyperparameters, a frozen dataclass with `make` (see
            `BaseConfig`).
        multitask: whether agents can learn several tasks from a dataset.
        micro_batches: whether updates can be divided (`tdmpc2.sharded_update`).
        seed_batch_class: `"module:Class"` that trains several seeds as one batch; None without.
        state_fields: further attributes that a checkpoint contains: numbers, tensors, containers.
            Tensors are restored in place, so that optimizers and modules may refer to them.
    """

    config_class: ClassVar[type[Any]] = BaseConfig
    multitask: ClassVar[bool] = False
    micro_batches: ClassVar[bool] = False
    seed_batch_class: ClassVar[str | None] = None
    state_fields: ClassVar[tuple[str, ...]] = ()

    num_envs: int = 1
    replay_length: int = 1
    replay_visibility: Literal["transition", "episode"] = "episode"
    updates_within_episodes: bool = True
    replay_across_episodes: bool = False
    replay_priorities: tuple[float, float] | None = None
    seed_with_agent: bool = False

    def __init__(
        self, config: Any, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.env, self.device = config, env, torch.device(device)
        self.seed_decisions = config.seed_decisions
        self.train_noise: Any = Draws(derive_seed(seed, "train noise"), self.device)
        self.eval_noise: Any = Draws(derive_seed(seed, "evaluation noise"), self.device)

    @staticmethod
    @contextlib.contextmanager
    def parameter_seed(seed: int) -> Iterator[None]:
        """Let the parameters of networks that are created in this context depend on the seed only.

        Torch's global generator is restored afterwards.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "parameters"))
            yield

    @classmethod
    def gflop(cls, config: Any, obs_dim: int, action_dim: int) -> dict[str, float] | None:
        """Return the floating-point operations of a call of `act` and of an update, in GFLOP.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.

        Returns:
            `{"plan": …, "update": …}`, without `plan` if acting costs next to nothing. None has
            them counted in one call of each.
        """
        del config, obs_dim, action_dim
        return None

    @classmethod
    def updates_per_decision(cls, config: Any) -> float:
        """Return the mean number of updates per decision after the seed decisions."""
        del config
        return 1.0

    def num_parameters(self) -> int:
        """Return the number of learned parameters."""
        modules = [value for value in vars(self).values() if isinstance(value, nn.Module)]
        return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced by compiled and native versions; by default, nothing."""
        return Accelerable(self.device)

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of updates due: one per decision after the seed decisions.

        They are due after each decision, or at the end of the episode (`updates_within_episodes`).
        """
        if event != ("decision" if self.updates_within_episodes else "episode_end"):
            return 0
        return min(counters.new_decisions, max(counters.decisions - self.seed_decisions, 0))

    @abc.abstractmethod
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)` in [-1, 1].

        Args:
            obs: observations `(B, *obs_shape)`.
            first: `(B,)`, True where an episode begins.
            explore: True for training, False for evaluation.
            task: `(B,)` indices of tasks; None for a single task.
        """

    @abc.abstractmethod
    def update(self, replay: Any) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay` and return scalar metrics."""

    def seed_evaluation(self, seed: int) -> None:
        """Seed the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    def follow_evaluation(self) -> None:  # noqa: B027  (a default, not an abstract method)
        """Change the parameters as `act` does in an evaluation of all tasks; by default not."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs."""
        state: dict[str, Any] = {name: getattr(self, name) for name in self.state_fields}
        for name, value in vars(self).items():
            if isinstance(value, nn.Module | torch.optim.Optimizer):
                state[name] = value.state_dict()
            elif isinstance(value, Draws):
                state[name] = value.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            current = getattr(self, name)
            if isinstance(current, nn.Module | torch.optim.Optimizer):
                current.load_state_dict(value)
            elif isinstance(current, Draws):
                current.generator.set_state(value.cpu())
            else:
                setattr(self, name, _restored(current, value, self.device))


def _restored(current: Any, saved: Any, device: torch.device) -> Any:
    """Return a saved value with the tensors of the agent, to which its optimizers refer.

    Args:
        current: value of the new agent; its tensors of the same shape and type are overwritten.
        saved: value of the checkpoint, whose tensors are on the CPU.
        device: device of tensors that the new agent does not have yet.

    Raises:
        ValueError: a learned tensor of the new agent has another shape or type.
    """
    if isinstance(saved, Tensor):
        if not isinstance(current, Tensor):
            return saved.to(device)
        if (current.shape, current.dtype) != (saved.shape, saved.dtype):
            if current.requires_grad:  # its optimizer would go on with the tensor that is replaced
                kinds = [f"{list(x.shape)} of {x.dtype}" for x in (saved, current)]
                raise ValueError(f"a learned tensor was {kinds[0]}, not {kinds[1]}")
            return saved.to(current.device)
        with torch.no_grad():
            return current.copy_(saved)
    if isinstance(saved, dict):
        known = current if isinstance(current, dict) else {}
        return {key: _restored(known.get(key), item, device) for key, item in saved.items()}
    if isinstance(saved, list | tuple):
        listed = list(current) if isinstance(current, list | tuple) else []
        listed += [None] * len(saved)
        pairs = zip(listed, saved, strict=False)
        return type(saved)(_restored(one, item, device) for one, item in pairs)
    return saved
