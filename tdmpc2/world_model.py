"""The latent world model: encoder, dynamics, reward, termination, Q-functions and policy prior."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.optim import move_toward
from tdmpc2.common.numerics.precision import products_in
from tdmpc2.config import TDMPC2Config
from tdmpc2.ensemble import QEnsemble
from tdmpc2.joint_heads import JointWeights, join, joinable, joint_outputs
from tdmpc2.layers import (
    PixelEncoder,
    StateEncoder,
    head,
    latent_layer,
    linear_of_parts,
    mlp,
    random_shift,
)
from tdmpc2.prior import PolicySample, make_prior
from tdmpc2.regression import make_regression
from tdmpc2.task_context import NO_TASK, TaskAware, TaskContext


class WorldModel(TaskAware):
    """Decoder-free latent world model with policy prior (paper, Section 3.1).

        encoder          z = h(s, e)
        latent dynamics  z' = d(z, a, e)
        reward           r̂ = R(z, a, e)
        terminal value   q̂ = Q(z, a, e)
        policy prior     â ~ p(z, e)

    All methods are pure functions of parameters and arguments: noise, dropout factors and the
    chosen Q-functions are arguments. Inputs are concatenated as `[z, e, a]`. `L` in shapes is
    `latent_dim`.

    Args:
        config: architecture and feature flags.
        env: shapes and number of tasks.
    """

    def __init__(self, config: TDMPC2Config, env: EnvSpec) -> None:
        super().__init__()
        self.config = config
        self.multitask = config.task_dim > 0
        self.prior = make_prior(config)
        self.regression = make_regression(config)
        latent_task = config.latent_dim + config.task_dim
        joint = latent_task + env.action_dim
        out_dim = self.regression.out_dim

        self.encoder: nn.Module
        if env.pixels:
            self.encoder = PixelEncoder(config, env.obs_shape[0])
        else:
            self.encoder = StateEncoder(config, env.obs_shape[0])
        self.dynamics = mlp(config, joint, latent_layer(config, config.mlp_dim))
        self.reward_head = mlp(config, joint, head(config.mlp_dim, out_dim, zero=True))
        self.termination_head = (
            mlp(config, latent_task, head(config.mlp_dim, 1)) if env.episodic else None
        )
        self.policy = mlp(
            config, latent_task, head(config.mlp_dim, self.prior.out_dim(env.action_dim))
        )
        # The prefix `policy` makes the policy's optimizer update the entropy coefficient.
        self.policy_log_alpha: nn.Parameter | None = None
        if config.entropy_tuning == "target":
            self.policy_log_alpha = nn.Parameter(torch.tensor(math.log(config.initial_alpha)))
        self.q_functions = QEnsemble(config, joint, out_dim)
        self.target_q_functions = copy.deepcopy(self.q_functions).requires_grad_(False)
        self._add_tasks(env, config.task_dim)

    def num_parameters(self) -> int:
        """Return the number of learned parameters, without target networks."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def encode(
        self, obs: Tensor, context: TaskContext = NO_TASK, shift: Tensor | None = None
    ) -> Tensor:
        """Return latents z = h(s, e), `(..., L)`.

        Args:
            obs: `(..., *obs_shape)`, observations s; pixels have values 0..255.
            context: task context of the rows.
            shift: `(..., 2)`, pixel offsets of the random shift; no shift if None.
        """
        if isinstance(self.encoder, PixelEncoder):
            if shift is not None:
                flat = random_shift(obs.reshape(-1, *obs.shape[-3:]), shift.reshape(-1, 2))
                obs = flat.view(obs.shape)
            with self._precision():
                return self.encoder(obs)
        with self._precision():
            return self.encoder(*_without_none(obs, context.embedding))

    def next(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Return next latents z' = d(z, a, e), `(..., L)`.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
        """
        with self._precision():
            return self.dynamics(*_without_none(latent, context.embedding, action)).float()

    def first_product(self, latent: Tensor) -> Tensor:
        """Return the product of latents `(..., L)` and their weights in d's first layer."""
        first: Any = self.dynamics[0]
        with self._precision():
            return F.linear(latent, first.linear.weight[:, : latent.shape[-1]])

    def rollout(
        self,
        latent: Tensor,
        actions: Tensor,
        context: TaskContext = NO_TASK,
        product: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the latents z_0..z_H of action sequences.

        On a GPU they are those of calls of `next` up to rounding: parameters that all calls share
        are prepared once, and without gradients, all actions are multiplied in one product.

        Args:
            latent: z_0, `(..., L)`, or `(B, 1, L)` if all sequences of an environment share it.
            actions: `(H, ..., A)`.
            context: task context of the rows.
            product: `first_product(latent)`, if it is known; for GPUs.
        """
        if not gpu_forms.wanted(latent.device):
            return super().rollout(latent, actions, context)
        num_rows = actions[0].numel() // actions.shape[-1]
        layers: list[Any] = list(self.dynamics)
        shared = [layer.shared(num_rows) for layer in layers]
        first, latents = layers[0], [latent]
        with self._precision():
            offsets = None
            if not torch.is_grad_enabled():
                columns = first.linear.weight[:, latent.shape[-1] :]
                inputs = _without_none(context.embedding, actions)
                offsets = linear_of_parts(tuple(inputs), columns, None)
            for t, action in enumerate(actions):
                if offsets is None:
                    inputs = _without_none(latents[t], context.embedding, action)
                    x = linear_of_parts(tuple(inputs), first.linear.weight, None)
                else:
                    known = product if t == 0 else None
                    of_latent = self.first_product(latents[t]) if known is None else known
                    x = of_latent.float() + offsets[t].float()
                for i, layer in enumerate(layers):
                    if i:
                        x = F.linear(x, layer.linear.weight)
                    x = layer.complete(x, shared[i])
                latents.append(x.float())
        return latents

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Return outputs `(..., num_bins)` of R(z, a, e), for `regression.decode`.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
        """
        with self._precision():
            return self.reward_head(*_without_none(latent, context.embedding, action)).float()

    def termination(self, latent: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Return logits `(...)` of the probability that the episode terminated at these latents.

        Raises:
            ValueError: the task is not episodic, so that the model has no termination head.
        """
        if self.termination_head is None:
            raise ValueError("no termination head: only models of episodic tasks have one")
        with self._precision():
            logits = self.termination_head(*_without_none(latent, context.embedding))
        return logits[..., 0].float()

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext = NO_TASK) -> PolicySample:
        """Sample actions â ~ p(z, e) from the policy prior.

        Args:
            latent: z, `(..., L)`.
            noise: `(..., A)`, standard normal.
            context: task context of the rows.
        """
        with self._precision():
            output = self.policy(*_without_none(latent, context.embedding))
        return self.prior.sample(output.float(), noise, context.action_mask)

    def q(
        self,
        latent: Tensor,
        action: Tensor,
        context: TaskContext = NO_TASK,
        *,
        heads: Tensor | None = None,
        dropout: Tensor | None = None,
        target: bool = False,
        frozen: bool = False,
    ) -> Tensor:
        """Return outputs `(K, ..., num_bins)` of K chosen Q-functions Q_i(z, a, e).

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
            heads: `(K,)`, indices of the Q-functions; all N if None.
            dropout: `(K, ..., mlp_dim)`, dropout factors; no dropout if None.
            target: whether to use the target networks Q̄_i.
            frozen: compute gradients for the inputs only, not for parameters (policy loss).
        """
        ensemble = self.target_q_functions if target else self.q_functions
        embedding = context.embedding
        if embedding is not None:
            embedding = embedding.expand(*latent.shape[:-1], embedding.shape[-1])
        inputs = _without_none(latent, embedding, action)
        with self._precision():
            return ensemble(*inputs, heads=heads, dropout=dropout, frozen=frozen).float()

    def reward_and_q(
        self,
        latents: Tensor,
        actions: Tensor,
        context: TaskContext = NO_TASK,
        *,
        heads: Tensor | None = None,
        dropout: Tensor | None = None,
        weights: JointWeights | None = None,
    ) -> Tensor:
        """Return outputs of R(z, a, e) for the first R inputs, and of Q-functions for K others.

        Args:
            latents: z, `(R + K, ..., L)`; the last K are equal.
            actions: a, `(R + K, ..., A)`; the last K are equal.
            context: task context of the rows.
            heads: `(K,)`, indices of the Q-functions; all N if None.
            dropout: `(K, ..., mlp_dim)`, dropout factors; no dropout if None.
            weights: `joint_weights` of these Q-functions, if they are known.

        Returns:
            Outputs `(R + K, ..., num_bins)`.
        """
        num_q = self.num_chosen(heads)
        num_reward = len(latents) - num_q
        if not joinable(self.reward_head, self.q_functions):
            rewards = self.reward(latents[:num_reward], actions[:num_reward], context)
            values = self.q(latents[-1], actions[-1], context, heads=heads, dropout=dropout)
            return torch.cat([rewards, values])
        embedding = context.embedding
        if embedding is not None:
            embedding = embedding.expand(*latents.shape[:-1], -1)
        parts = [part.flatten(1, -2) for part in _without_none(latents, embedding, actions)]
        if dropout is not None:
            dropout = dropout.reshape(num_q, parts[0].shape[1], -1)
        if weights is None:
            weights = join(self.reward_head, self.q_functions, num_reward, heads)
        with self._precision():
            epilogue = self.q_functions.joint_epilogue(parts[0])
            output = joint_outputs(weights, parts, dropout, epilogue)
        return output.view(-1, *latents.shape[1:-1], output.shape[-1])

    def num_chosen(self, heads: Tensor | None) -> int:
        """Return K, the number of Q-functions with these indices `(..., K)`; all if None."""
        return self.q_functions.num_q if heads is None else heads.shape[-1]

    def joint_weights(self, num_reward: int, heads: Tensor | None) -> JointWeights | None:
        """Return the parameters that `reward_and_q` uses; None if it does not join them.

        Args:
            num_reward: R, number of inputs of the reward head.
            heads: `(K,)` or `(I, K)`, indices of the Q-functions; all if None.
        """
        if not joinable(self.reward_head, self.q_functions):
            return None
        return join(self.reward_head, self.q_functions, num_reward, heads)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which matrix multiplications use bfloat16 if `precision=bf16`.

        Results are converted to float32.
        """
        return products_in(self.config.precision, self.q_functions.linear1.weight.device.type)

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        """Update the target Q-functions: θ̄ ← θ̄ + τ·(θ − θ̄)."""
        move_toward(self.target_q_functions.parameters(), self.q_functions.parameters(), tau)


def _without_none(*inputs: Tensor | None) -> list[Tensor]:
    """Return the inputs that are not None: `[x, e, a]`, or `[x, a]` without task embedding."""
    return [x for x in inputs if x is not None]
