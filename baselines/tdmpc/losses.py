"""The losses of TD-MPC as pure functions of model, batch and noise (Hansen et al., 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.model import TOLD
from tdmpc2.common.replay.types import Batch


class ModelLoss(NamedTuple):
    """Result of `model_loss`.

    Attributes:
        loss: the scalar loss `()`.
        latents: `(H + 1, B, latent_dim)`, the detached latents z_0..z_H of the rollout.
        priority: `(B,)`, new priorities of the rows.
        metrics: scalar tensors by name.
    """

    loss: Tensor
    latents: Tensor
    priority: Tensor
    metrics: dict[str, Tensor]


class PolicyLoss(NamedTuple):
    """Result of `policy_loss`: the scalar loss `()` and scalar metrics by name."""

    loss: Tensor
    metrics: dict[str, Tensor]


def model_loss(
    config: TDMPCConfig, model: TOLD, batch: Batch, discount: Tensor, noise: Tensor
) -> ModelLoss:
    """Compute the consistency, reward and value loss (TD-MPC paper, Section 4).

    L = (1/H)·mean_b w_b·[c_z·min(C_b, c_max) + c_r·min(R_b, c_max) + c_q·min(V_b, c_max)],

        C = Σ_{t=0}^{H−1} ρ^t·mean_i (z_{t+1,i} − h̄(s_{t+1})_i)²
        R = Σ_{t=0}^{H−1} ρ^t·(R(z_t, a_t) − r_t)²
        V = Σ_{t=0}^{H−1} ρ^t·Σ_{j=1,2} (Q_j(z_t, a_t) − y_t)²
        y_t = r_t + γ·(1 − d_t)·min_j Q̄_j(z', π(z') + noise),  z' = h(s_{t+1})

    with z_0 = h(s_0), z_{t+1} = d(z_t, a_t), target encoder h̄, target networks Q̄_j, and d_t = 1 if
    the episode terminated. w are the importance weights of prioritized replay. By default
    (c_z, c_r, c_q) = (2, 0.5, 0.1), ρ = 0.5, c_max = `loss_clip` = 1e4. The priority of a row is
    Σ_t ρ^t·Σ_j |Q_j(z_t, a_t) − y_t|, at most c_max.

    Args:
        config: config with task-specific values (`TDMPCConfig.for_task`).
        model: the networks.
        batch: sub-trajectories: observations `(H + 1, B, O)`, actions `(H, B, A)`, rewards
            `(H, B)`.
        discount: `(B,)`, γ of each row.
        noise: `(H, B, A)`, standard normal, for the actions in the target.
    """
    context = model.context(batch.task)
    with torch.no_grad():
        target_latent = model.encode(batch.obs[1:], context, target=True)
        next_latent = model.encode(batch.obs[1:], context)
        action = model.pi(next_latent, noise, context).action
        bootstrap = model.both_q(next_latent, action, context, target=True).amin(0)
        target = batch.reward + discount * (1 - batch.terminated) * bootstrap

    latents = [model.encode(batch.obs[0], context)]
    for action in batch.action:
        latents.append(model.next(latents[-1], action, context))
    z = torch.stack(latents)
    rho = config.rho ** torch.arange(config.horizon, device=z.device)[:, None]
    consistency = (rho * (z[1:] - target_latent).square().mean(-1)).sum(0)
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
    """Compute the policy loss (TD-MPC paper, Section 4).

    L_π = −Σ_{t=0}^{H} ρ^t·mean_b min_{j=1,2} Q_j(z_t, π(z_t) + noise).

    Only the policy's parameters receive gradients.

    Args:
        config: config with task-specific values (`TDMPCConfig.for_task`).
        model: the networks.
        latents: `(H + 1, B, latent_dim)`, detached latents of the model's rollout.
        task: `(B,)`, task indices; None for one task.
        noise: `(H + 1, B, A)`, standard normal.
    """
    context = model.context(task).detach()
    action = model.pi(latents, noise, context).action
    q = model.both_q(latents, action, context, frozen=True).amin(0)
    rho = config.rho ** torch.arange(config.horizon + 1, device=q.device)
    loss = -(rho * q.mean(1)).sum()
    return PolicyLoss(loss, {"pi_loss": loss.detach(), "q_mean": q.detach().mean()})
