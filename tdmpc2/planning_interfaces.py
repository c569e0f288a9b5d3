"""What the planner needs of a configuration and of a model."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tdmpc2.prior import PolicySample
from tdmpc2.world_model import TaskContext


class PlanningConfig(Protocol):
    """MPPI hyperparameters, which the configs of TD-MPC2 and TD-MPC provide."""

    @property
    def num_elites(self) -> int:
        """Number E of best sequences to which mean and standard deviation are refitted."""

    @property
    def temperature(self) -> float:
        """Inverse temperature of the softmax over values that weights the elites."""

    @property
    def momentum(self) -> float:
        """Weight of the previous mean in the new one."""

    @property
    def max_std(self) -> float:
        """Largest standard deviation, which is also the initial one."""


class PlanningModel(Protocol):
    """Interface of the models that MPPI plans with; `WorldModel` documents the methods."""

    @property
    def termination_head(self) -> Any:
        """None if episodes do not end early; otherwise the model has a method `termination`."""

    @property
    def regression(self) -> Any:
        """Object whose `decode` turns outputs for rewards and values into scalars."""

    def encode(self, obs: Tensor, context: TaskContext, shift: Tensor | None) -> Tensor:
        """Return latents `(..., latent_dim)`.

        Args:
            obs: `(..., *obs_shape)`.
            context: task embedding and action mask.
            shift: pixel offsets `(..., 2)`; None for states.
        """

    def next(self, latent: Tensor, action: Tensor, context: TaskContext) -> Tensor:
        """Return the next latents `(..., latent_dim)`.

        Args:
            latent: `(..., latent_dim)`.
            action: `(..., A)`.
            context: task embedding and action mask.
        """

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext) -> Tensor:
        """Return outputs of the reward head, for `regression.decode`.

        Args:
            latent: `(..., latent_dim)`.
            action: `(..., A)`.
            context: task embedding and action mask.
        """

    def reward_and_q(
        self,
        latents: Tensor,
        actions: Tensor,
        context: TaskContext,
        **choice: Any,
    ) -> Tensor:
        """Return outputs of `reward` for all but the last input, and of `q` for it: `(R + K, ...)`.

        Args:
            latents: `(R + 1, ..., latent_dim)`.
            actions: `(R + 1, ..., A)`.
            context: task embedding and action mask.
            **choice: as for `q`.
        """

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext) -> PolicySample:
        """Sample actions `(..., A)` from the policy prior.

        Args:
            latent: `(..., latent_dim)`.
            noise: `(..., A)`, standard normal.
            context: task embedding and action mask.
        """

    def q(self, latent: Tensor, action: Tensor, context: TaskContext, **choice: Any) -> Tensor:
        """Return outputs of K Q-functions `(K, ...)`, whose decoded values are averaged.

        Args:
            latent: `(..., latent_dim)`.
            action: `(..., A)`.
            context: task embedding and action mask.
            **choice: `heads` and `dropout` of `estimate_value`.
        """
