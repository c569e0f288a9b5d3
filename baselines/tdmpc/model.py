"""The task-oriented latent dynamics model of TD-MPC."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from baselines.networks import MLP
from baselines.tdmpc.config import TDMPCConfig
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.prior import GaussianNoisePrior, PolicySample
from tdmpc2.world_model import NO_TASK, TaskAware, TaskContext


class Scalars:
    """Heads predict scalars; the planner asks for nothing else."""

    def decode(self, output: Tensor) -> Tensor:
        """The scalars themselves."""
        return output


class TOLD(TaskAware):
    """Encoder, latent dynamics, reward, policy and twin Q-functions: MLPs with ELU.

    It answers what `tdmpc2.planner` asks of a model. Several tasks are told apart by a learned
    embedding beside every input, and by masks of the actions, as in TD-MPC2.

    Args:
        config: with the task's values.
        env: shapes and number of tasks.
    """

    termination_head = None  # episodes that end early are known to the TD-target only

    def __init__(self, config: TDMPCConfig, env: EnvSpec) -> None:
        super().__init__()
        self.config = config
        self.prior = GaussianNoisePrior(config.prior_std, config.prior_noise_clip)
        self.regression = Scalars()
        latent_dim, width, task_dim = config.latent_dim, config.mlp_dim, config.task_dim
        assert latent_dim is not None
        hidden = [config.enc_dim] * max(config.num_enc_layers - 1, 1)
        self.encoder = MLP([env.obs_shape[0] + task_dim, *hidden, latent_dim], "elu")
        latent_task = latent_dim + task_dim
        joint = [latent_task + env.action_dim, width, width]
        self.dynamics = MLP([*joint, latent_dim], "elu")
        self.reward_head = MLP([*joint, 1], "elu", zero_last=True)
        self.policy = MLP([latent_task, width, width, env.action_dim], "elu")
        self.q_functions = nn.ModuleList(
            MLP([*joint, 1], "elu", norm_first=True, zero_last=True) for _ in range(2)
        )
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_q_functions = copy.deepcopy(self.q_functions).requires_grad_(False)
        self._add_tasks(env, config.task_dim)

    def blockable(self) -> dict[nn.Module, tuple[Any, int]]:
        """The layers that planning evaluates often, for `BlockedWeights`."""
        networks = [self.dynamics, self.reward_head, self.policy, *self.q_functions]
        rows = self.config.num_samples + self.config.num_pi_samples
        modules = (module for network in networks for module in network.modules())
        return {m: (m.weight, rows) for m in modules if isinstance(m, nn.Linear)}

    def encode(
        self,
        obs: Tensor,
        context: TaskContext = NO_TASK,
        shift: Tensor | None = None,
        *,
        target: bool = False,
    ) -> Tensor:
        """Latents `(..., L)` of observations `(..., O)`; `shift` is for images only."""
        encoder = self.target_encoder if target else self.encoder
        return encoder(*_beside(context, obs))

    def next(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Next latents `(..., L)`."""
        return self.dynamics(*_beside(context, latent, action))

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Rewards `(...)`."""
        return self.reward_head(*_beside(context, latent, action))[..., 0]

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext = NO_TASK) -> PolicySample:
        """Tanh of the policy's output, with clipped Gaussian noise."""
        return self.prior.sample(self.policy(*_beside(context, latent)), noise, context.action_mask)

    def both_q(
        self,
        latent: Tensor,
        action: Tensor,
        context: TaskContext = NO_TASK,
        *,
        target: bool = False,
        frozen: bool = False,
    ) -> Tensor:
        """Values `(2, ...)` of both Q-functions.

        Args:
            latent: `(..., L)`.
            action: `(..., A)`.
            context: of the rows.
            target: whether to use the target networks.
            frozen: gradients for the action only, not for parameters.
        """
        functions = self.target_q_functions if target else self.q_functions
        parts = _beside(context, latent, action)
        return torch.stack([q(*parts, frozen=frozen)[..., 0] for q in functions])

    def q(
        self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK, **_unused: Any
    ) -> Tensor:
        """The lesser of both values, `(1, ...)`: what the planner takes for the value."""
        return self.both_q(latent, action, context).amin(0, keepdim=True)


def _beside(context: TaskContext, first: Tensor, *others: Tensor) -> list[Tensor]:
    """The parts of a network's input: `[x, e, a]`, or without the embedding."""
    embedding = [] if context.embedding is None else [context.embedding]
    return [first, *embedding, *others]
