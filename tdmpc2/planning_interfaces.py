"""What the planner needs of a configuration and of a model."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tdmpc2.joint_heads import JointWeights
from tdmpc2.prior import PolicySample
from tdmpc2.task_context import TaskContext


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

    def first_product(self, latent: Tensor) -> Tensor | None:
        """Return what `rollout` needs of latents `(..., latent_dim)` that several calls share."""

    def rollout(
        self, latent: Tensor, actions: Tensor, context: TaskContext, product: Tensor | None
    ) -> list[Tensor]:
        """Return the latents z_0..z_H of action sequences: those of calls of `next`.

        Args:
            latent: `(B, N, latent_dim)` or `(B, 1, latent_dim)`.
            actions: `(H, B, N, A)`.
            context: task embedding and action mask.
            product: `first_product(latent)`, if it is known.
        """

    def num_chosen(self, heads: Tensor | None) -> int:
        """Return K, the number of outputs of `q`.

        Args:
            heads: `(2,)`, indices of the Q-functions; all if None.
        """

    def joint_weights(self, num_reward: int, heads: Tensor | None) -> JointWeights | None:
        """Return parameters for `reward_and_q` that several calls share; None if there are none.

        Args:
            num_reward: R, number of inputs of the reward head.
            heads: `(I, 2)`, indices of the Q-functions of each call; all if None.
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
        *,
        heads: Tensor | None,
        dropout: Tensor | None,
        weights: JointWeights | None,
    ) -> Tensor:
        """Return outputs of `reward` for R inputs, and of `q` for K equal ones: `(R + K, ...)`.

        Args:
            latents: `(R + K, ..., latent_dim)`.
            actions: `(R + K, ..., A)`.
            context: task embedding and action mask.
            heads: as for `q`.
            dropout: as for `q`.
            weights: result of `joint_weights`, if it is known.
        """

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext) -> PolicySample:
        """Sample actions `(..., A)` from the policy prior.

        Args:
            latent: `(..., latent_dim)`.
            noise: `(..., A)`, standard normal.
            context: task embedding and action mask.
        """

    def q(
        self,
        latent: Tensor,
        action: Tensor,
        context: TaskContext,
        *,
        heads: Tensor | None,
        dropout: Tensor | None,
    ) -> Tensor:
        """Return outputs of K Q-functions `(K, ...)`, whose decoded values are averaged.

        Args:
            latent: `(..., latent_dim)`.
            action: `(..., A)`.
            context: task embedding and action mask.
            heads: `(2,)`, indices of the Q-functions; all if None.
            dropout: `(K, ..., mlp_dim)`, dropout factors; no dropout if None.
        """
