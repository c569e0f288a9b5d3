"""The task-oriented latent dynamics (TOLD) model of TD-MPC (Hansen et al., 2022, Section 4)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from baselines.networks import MLP
from baselines.tdmpc.config import TDMPCConfig
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.prior import GaussianNoisePrior, PolicySample
from tdmpc2.task_context import NO_TASK, TaskAware, TaskContext


class Scalars:
    """The `regression` of a model whose heads predict scalars directly, for the planner."""

    def decode(self, output: Tensor) -> Tensor:
        """Return the output unchanged."""
        return output


class TOLD(TaskAware):
    """Encoder h, latent dynamics d, reward R, policy π and twin Q-functions Q_j: MLPs with ELU.

    Implements `tdmpc2.planning_interfaces.PlanningModel`. For several tasks, each network's input
    includes a learned task embedding e, and actions are masked, as in TD-MPC2. `L` in shapes is
    `latent_dim`.

    Args:
        config: config with task-specific values (`TDMPCConfig.for_task`).
        env: shapes and number of tasks.
    """

    termination_head = None  # terminations affect the TD-target only, not planning

    def __init__(self, config: TDMPCConfig, env: EnvSpec) -> None:
        super().__init__()
        self.config = config
        self.prior = GaussianNoisePrior(config.prior_std, config.prior_noise_clip)
        self.regression = Scalars()
        latent_dim, width, task_dim = config.latent_dim, config.mlp_dim, config.task_dim
        assert latent_dim is not None
        common: dict[str, Any] = {"activation": "elu", "precision": config.precision}
        hidden = [config.enc_dim] * (config.num_enc_layers - 1)
        self.encoder = MLP([env.obs_shape[0] + task_dim, *hidden, latent_dim], **common)
        latent_task = latent_dim + task_dim
        joint = [latent_task + env.action_dim, width, width]
        self.dynamics = MLP([*joint, latent_dim], **common)
        self.reward_head = MLP([*joint, 1], zero_last=True, **common)
        self.policy = MLP([latent_task, width, width, env.action_dim], **common)
        self.q_functions = nn.ModuleList(
            MLP([*joint, 1], norm_first=True, zero_last=True, **common) for _ in range(2)
        )
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_q_functions = copy.deepcopy(self.q_functions).requires_grad_(False)
        self._add_tasks(env, config.task_dim)

    def encode(
        self,
        obs: Tensor,
        context: TaskContext = NO_TASK,
        shift: Tensor | None = None,
        *,
        target: bool = False,
    ) -> Tensor:
        """Return latents z = h(s, e), `(..., L)`.

        Args:
            obs: `(..., O)`, observations s.
            context: task context of the rows.
            shift: not used; pixel offsets in the interface of the planner.
            target: whether to use the target encoder h̄.
        """
        encoder = self.target_encoder if target else self.encoder
        return encoder(*_with_embedding(context, obs))

    def next(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Return next latents z' = d(z, a, e), `(..., L)`.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
        """
        return self.dynamics(*_with_embedding(context, latent, action))

    def first_product(self, _latent: Tensor) -> None:
        """Return None: `rollout` multiplies whole inputs."""

    def num_chosen(self, _heads: Tensor | None) -> int:
        """Return 1: `q` returns the smaller value."""
        return 1

    def joint_weights(self, _num_reward: int, _heads: Tensor | None) -> None:
        """Return None: reward head and Q-functions are not joined."""

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK) -> Tensor:
        """Return rewards R(z, a, e), `(...)`.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
        """
        return self.reward_head(*_with_embedding(context, latent, action))[..., 0]

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext = NO_TASK) -> PolicySample:
        """Sample actions of the policy with clipped Gaussian noise; see `GaussianNoisePrior`.

        Args:
            latent: z, `(..., L)`.
            noise: `(..., A)`, standard normal.
            context: task context of the rows.
        """
        output = self.policy(*_with_embedding(context, latent))
        return self.prior.sample(output, noise, context.action_mask)

    def both_q(
        self,
        latent: Tensor,
        action: Tensor,
        context: TaskContext = NO_TASK,
        *,
        target: bool = False,
        frozen: bool = False,
    ) -> Tensor:
        """Return the values `(2, ...)` of both Q-functions.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
            target: whether to use the target networks Q̄_j.
            frozen: compute gradients for the inputs only, not for parameters.
        """
        functions = self.target_q_functions if target else self.q_functions
        inputs = _with_embedding(context, latent, action)
        return torch.stack([q(*inputs, frozen=frozen)[..., 0] for q in functions])

    def reward_and_q(
        self,
        latents: Tensor,
        actions: Tensor,
        context: TaskContext = NO_TASK,
        **_unused: Any,
    ) -> Tensor:
        """Return rewards of all but the last input, and its smaller value, `(R + 1, ...)` in all.

        Args:
            latents: z, `(R + 1, ..., L)`.
            actions: a, `(R + 1, ..., A)`.
            context: task context of the rows.
        """
        rewards = self.reward(latents[:-1], actions[:-1], context)
        return torch.cat([rewards, self.q(latents[-1], actions[-1], context)])

    def q(
        self, latent: Tensor, action: Tensor, context: TaskContext = NO_TASK, **_unused: Any
    ) -> Tensor:
        """Return the smaller of both values, `(1, ...)`, which the planner uses.

        Args:
            latent: z, `(..., L)`.
            action: a, `(..., A)`.
            context: task context of the rows.
            **_unused: `heads` and `dropout` in the interface of the planner.
        """
        return self.both_q(latent, action, context).amin(0, keepdim=True)


def _with_embedding(context: TaskContext, first: Tensor, *others: Tensor) -> list[Tensor]:
    """Return the inputs of a network: `[x, e, a]`, or `[x, a]` without task embedding."""
    embedding = [] if context.embedding is None else [context.embedding]
    return [first, *embedding, *others]
