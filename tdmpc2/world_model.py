"""The latent world model: encoder, dynamics, reward, termination, Q-functions and policy prior."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tdmpc2 import kernels
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.optim import move_toward
from tdmpc2.common.numerics.precision import products_in
from tdmpc2.config import TDMPC2Config
from tdmpc2.ensemble import QEnsemble
from tdmpc2.layers import (
    EMBEDDING_INIT,
    NormedLinear,
    PixelEncoder,
    StateEncoder,
    head,
    latent_layer,
    mlp,
    random_shift,
)
from tdmpc2.prior import PolicySample, make_prior
from tdmpc2.regression import make_regression


class TaskContext(NamedTuple):
    """What the networks need to know of the task; both None in single-task learning.

    Attributes:
        embedding: `(..., B, task_dim)`, broadcast over leading dimensions.
        action_mask: `(..., B, A)`, 1 for valid action dimensions and 0 for padding.
    """

    embedding: Tensor | None = None
    action_mask: Tensor | None = None

    def detach(self) -> TaskContext:
        """The same context, with the task embedding cut from the graph."""
        if self.embedding is None:
            return self
        return self._replace(embedding=self.embedding.detach())

    def over_samples(self) -> TaskContext:
        """Inserts a dimension for the samples of the planner: `(B, e)` becomes `(B, 1, e)`."""
        return TaskContext(*(None if x is None else x.unsqueeze(-2) for x in self))


NO_TASK = TaskContext()


class TaskAware(nn.Module):
    """A model of one task, or of several that it tells apart by a learned embedding."""

    config: Any
    action_masks: Tensor

    def _add_tasks(self, env: EnvSpec, task_dim: int) -> None:
        """Embeddings and action masks of the tasks, where there are several (`task_dim > 0`)."""
        self.task_embedding: nn.Parameter | None = None
        if task_dim:
            table = torch.empty(env.num_tasks, task_dim)
            self.task_embedding = nn.Parameter(
                nn.init.uniform_(table, -EMBEDDING_INIT, EMBEDDING_INIT)
            )
            valid = torch.arange(env.action_dim) < torch.tensor(env.action_dims)[:, None]
            self.register_buffer("action_masks", valid.float(), persistent=False)

    def context(self, task: Tensor | None) -> TaskContext:
        """Embedding and action mask of tasks `(B,)`; empty in single-task learning.

        Args:
            task: of every row; None where there is only one, whose context all rows share.
        """
        if self.task_embedding is None:
            return NO_TASK
        if task is None:
            if len(self.task_embedding) > 1:
                raise ValueError("a multi-task model needs the task of every row")
            return TaskContext(self.task_embedding, self.action_masks)
        return TaskContext(self.task_embedding[task], self.action_masks[task])

    @torch.no_grad()
    def renormalize_task_embedding(self, task: Tensor | None) -> None:
        """Projects the embeddings about to be used onto the unit ball, in place (max_norm = 1)."""
        if self.task_embedding is None or not self.config.normalize_task_embedding:
            return
        if task is None:  # see `context`
            task = torch.zeros(1, dtype=torch.long, device=self.task_embedding.device)
        torch.embedding_renorm_(self.task_embedding.data, task, 1.0, 2.0)


class WorldModel(TaskAware):
    """Decoder-free latent world model (paper, Eq. 1).

        z = h(s, e)        z' = d(z, a, e)      r̂ = R(z, a, e)
        q̂ = Q(z, a, e)     â ~ p(z, e)

    All methods are pure functions of parameters and arguments; noise, dropout factors and
    the choice of Q-functions come in as arguments. Networks see `[z, e, a]` in this order.

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
        # A learned entropy coefficient is the policy's, and takes its optimizer.
        self.policy_log_alpha: nn.Parameter | None = None
        if config.entropy_tuning == "target":
            self.policy_log_alpha = nn.Parameter(torch.tensor(math.log(config.initial_alpha)))
        self.q_functions = QEnsemble(config, joint, out_dim)
        self.target_q_functions = copy.deepcopy(self.q_functions).requires_grad_(False)
        self._add_tasks(env, config.task_dim)

    def num_parameters(self) -> int:
        """Learned parameters; target networks don't count."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def blockable(self) -> dict[nn.Module, tuple[nn.Parameter, int]]:
        """The layers that planning evaluates often, for `BlockedWeights`."""
        networks, rows = (self.dynamics, self.reward_head, self.policy), self.config.num_samples
        found: dict[nn.Module, tuple[nn.Parameter, int]] = {}
        for layer in (module for network in networks for module in network.modules()):
            if isinstance(layer, NormedLinear) and layer.kernel_knows():
                found[layer] = (layer.linear.weight, rows)
        q = self.q_functions
        if q.norm1 is not None and q.width % kernels.LANES == 0:
            found |= {layer: (layer.weight, rows) for layer in (q.linear1, q.linear2)}
        return found

    def encode(
        self, obs: Tensor, context: TaskContext = NO_TASK, shift: Tensor | None = None
    ) -> Tensor:
        """Latents `(..., L)` of observations `(..., *obs_shape)`.

        Args:
            obs: observations; for pixels with values 0..255.
            context: of the rows.
            shift: pixel offsets `(..., 2)` of the random shift; none when None.
        """
        if isinstance(self.encoder, PixelEncoder):
            if shift is not None:
                flat = random_shift(obs.reshape(-1, *obs.shape[-3:]), shift.reshape(-1, 2))
                obs = flat.view(obs.shape)
            with self._precision():
                return self.encoder(obs)
        with self._precision():
            return self.encoder(*_present(obs, context.embedding))

    def next(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Next latents `(..., L)`."""
        with self._precision():
            return self.dynamics(*_present(latent, context.embedding, action)).float()

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Outputs `(..., bins)` of the reward head; `regression` decodes them."""
        with self._precision():
            return self.reward_head(*_present(latent, context.embedding, action)).float()

    def termination(self, latent: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Logits `(...)` of the probability that the episode has ended at these latents."""
        if self.termination_head is None:
            raise ValueError("only models of episodic tasks predict termination")
        with self._precision():
            logits = self.termination_head(*_present(latent, context.embedding))
        return logits[..., 0].float()

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext = NO_TASK) -> PolicySample:
        """A sample of the policy prior for latents `(..., L)` and noise `(..., A)`."""
        with self._precision():
            output = self.policy(*_present(latent, context.embedding))
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
        """Outputs `(K, ..., bins)` of the chosen Q-functions.

        Args:
            latent: `(..., L)`.
            action: `(..., A)`.
            context: of the rows.
            heads: `(K,)` indices; all N when None.
            dropout: factors `(K, ..., mlp_dim)`; no dropout when None.
            target: whether to use the target networks.
            frozen: gradients for the action only, not for parameters, as in the policy loss.
        """
        ensemble = self.target_q_functions if target else self.q_functions
        embedding = context.embedding
        if embedding is not None:
            embedding = embedding.expand(*latent.shape[:-1], embedding.shape[-1])
        parts = _present(latent, embedding, action)
        with self._precision():
            return ensemble(*parts, heads=heads, dropout=dropout, frozen=frozen).float()

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Where products may be taken in bfloat16; their results go on as float32."""
        return products_in(self.config.precision, self.q_functions.linear1.weight.device.type)

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        """Moves the target networks toward the online ones: θ̄ ← θ̄ + τ(θ − θ̄)."""
        move_toward(self.target_q_functions.parameters(), self.q_functions.parameters(), tau)


def _present(*parts: Tensor | None) -> list[Tensor]:
    """The parts of a network's input that there are: `[x, e, a]` or `[x, a]`."""
    return [part for part in parts if part is not None]
