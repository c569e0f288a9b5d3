"""TD-MPC's losses: latent consistency, reward and value along a rollout, and the policy's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.model import TOLD
from tdmpc2.common.replay.types import Batch


class ModelLoss(NamedTuple):
    """Outcome of the model loss.

    Attributes:
        loss: scalar.
        latents: `(H + 1, B, L)`, the rollout, without graph.
        priority: `(B,)`, errors of the values.
        metrics: what is recorded.
    """

    loss: Tensor
    latents: Tensor
    priority: Tensor
    metrics: dict[str, Tensor]


class PolicyLoss(NamedTuple):
    """Outcome of the policy loss: scalar, and what is recorded."""

    loss: Tensor
    metrics: dict[str, Tensor]


def model_loss(
    config: TDMPCConfig, model: TOLD, batch: Batch, discount: Tensor, noise: Tensor
) -> ModelLoss:
    """Mean of w·[2·C + 0.5·R + 0.1·V] / H, with each sum over time cut at 1e4.

    C = Σ ρ^t mean (z_{t+1} − h̄(s_{t+1}))², R = Σ ρ^t (r̂ − r)², V = Σ ρ^t Σ_j (Q_j − y)², along
    z_{t+1} = d(z_t, a_t) from z_0 = h(s_0); y = r + γ(1 − d)·min_j Q̄_j(h(s'), π(h(s')) + noise).

    Args:
        config: with the task's values.
        model: the networks.
        batch: of H transitions.
        discount: `(B,)`.
        noise: `(H, B, A)`, of the actions in the target.
    """
    context = model.context(batch.task)
    with torch.no_grad():
        goal = model.encode(batch.obs[1:], context, target=True)
        after = model.encode(batch.obs[1:], context)
        action = model.pi(after, noise, context).action
        bootstrap = model.both_q(after, action, context, target=True).amin(0)
        target = batch.reward + discount * (1 - batch.terminated) * bootstrap

    latents = [model.encode(batch.obs[0], context)]
    for action in batch.action:
        latents.append(model.next(latents[-1], action, context))
    z = torch.stack(latents)
    rho = config.rho ** torch.arange(config.horizon, device=z.device)[:, None]
    consistency = (rho * (z[1:] - goal).square().mean(-1)).sum(0)
    reward = (rho * (model.reward(z[:-1], batch.action, context) - batch.reward).square()).sum(0)
    error = model.both_q(z[:-1], batch.action, context) - target
    value = (rho * error.square().sum(0)).sum(0)
    total = (
        config.consistency_coef * consistency.clamp(max=config.loss_clip)
        + config.reward_coef * reward.clamp(max=config.loss_clip)
        + config.value_coef * value.clamp(max=config.loss_clip)
    )
    weighted = total if batch.weight is None else total * batch.weight
    metrics = {
        "consistency_loss": consistency.detach().mean(),
        "reward_loss": reward.detach().mean(),
        "value_loss": value.detach().mean(),
        "total_loss": total.detach().mean(),
    }
    priority = (rho * error.detach().abs().sum(0)).sum(0).clamp(max=config.loss_clip)
    return ModelLoss(weighted.mean() / config.horizon, z.detach(), priority, metrics)


def policy_loss(
    config: TDMPCConfig, model: TOLD, latents: Tensor, task: Tensor | None, noise: Tensor
) -> PolicyLoss:
    """−Σ_t ρ^t mean min_j Q_j(z_t, π(z_t) + noise), for the policy's parameters only.

    Args:
        config: with the task's values.
        model: the networks.
        latents: `(H + 1, B, L)`, without graph.
        task: `(B,)`, or None.
        noise: `(H + 1, B, A)`.
    """
    context = model.context(task).detach()
    action = model.pi(latents, noise, context).action
    q = model.both_q(latents, action, context, frozen=True).amin(0)
    rho = config.rho ** torch.arange(config.horizon + 1, device=q.device)
    loss = -(rho * q.mean(1)).sum()
    return PolicyLoss(loss, {"pi_loss": loss.detach(), "q_mean": q.detach().mean()})
