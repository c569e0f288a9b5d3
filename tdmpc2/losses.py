"""The losses of TD-MPC2 as pure functions of model, batch and noise (paper, Section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2.common.numerics.optim import percentile
from tdmpc2.common.replay.types import Batch
from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import UpdateNoise
from tdmpc2.prior import PolicySample
from tdmpc2.world_model import TaskContext, WorldModel

VALUE_PERCENTILES = (0.05, 0.95)


class ModelLoss(NamedTuple):
    """Outcome of `model_loss`.

    Attributes:
        loss: `()`, to be differentiated.
        latents: `(H + 1, B, L)`, z_0..z_H, detached.
        metrics: scalars by name.
        priority: `(B,)`, of prioritized replay; None without it.
    """

    loss: Tensor
    latents: Tensor
    metrics: dict[str, Tensor]
    priority: Tensor | None


class PolicyLoss(NamedTuple):
    """Outcome of `policy_loss`.

    Attributes:
        loss: `()`, to be differentiated.
        value_scale: `()`, S after this batch.
        metrics: scalars by name.
    """

    loss: Tensor
    value_scale: Tensor
    metrics: dict[str, Tensor]


@torch.no_grad()
def td_target(
    model: WorldModel, batch: Batch, context: TaskContext, discount: Tensor, noise: UpdateNoise
) -> tuple[Tensor, Tensor]:
    """Latents of the next observations and y = r + γ·min of two target Qs at (z̄', a' ~ p).

    Args:
        model: the world model.
        batch: sub-trajectories.
        context: of the rows.
        discount: `(B,)`.
        noise: of the update.

    Returns:
        z̄' `(H, B, L)` and y `(H, B)`.
    """
    shift = None if noise.shift is None else noise.shift[1:]
    latent = model.encode(batch.obs[1:], context, shift)
    action = model.pi(latent, noise.target_policy, context).action
    q = model.q(
        latent,
        action,
        context,
        heads=noise.target_heads,
        dropout=noise.target_dropout,
        target=True,
    )
    bootstrap = model.regression.decode(q).amin(0) * (1 - batch.terminated)
    return latent, batch.reward + discount * bootstrap


def model_loss(
    config: TDMPC2Config, model: WorldModel, batch: Batch, discount: Tensor, noise: UpdateNoise
) -> ModelLoss:
    """Joint-embedding prediction, reward and value loss (paper, Eq. 3).

    L = Σ_t ρ^t [20·MSE(z_{t+1}, z̄_{t+1}) + 0.1·l(R̂_t, r_t) + 0.1·mean_i l(Q̂_i,t, y_t)] / H,
    with z_0 = h(s_0), z_{t+1} = d(z_t, a_t), and gradients through the whole rollout.
    """
    context = model.context(batch.task)
    next_latents, target = td_target(model, batch, context, discount, noise)

    shift = None if noise.shift is None else noise.shift[0]
    latents = [model.encode(batch.obs[0], context, shift)]
    for action in batch.action:
        latents.append(model.next(latents[-1], action, context))
    z = torch.stack(latents)

    consistency = (z[1:] - next_latents).square().mean(-1)
    reward = model.regression.loss(model.reward(z[:-1], batch.action, context), batch.reward)
    q = model.q(z[:-1], batch.action, context, dropout=noise.model_dropout)
    value = model.regression.loss(q, target.expand(q.shape[:-1])).mean(0)

    losses = {
        "consistency_loss": _over_time(config, consistency, batch.weight),
        "reward_loss": _over_time(config, reward, batch.weight),
        "value_loss": _over_time(config, value, batch.weight),
    }
    total = (
        config.consistency_coef * losses["consistency_loss"]
        + config.reward_coef * losses["reward_loss"]
        + config.value_coef * losses["value_loss"]
    )
    if model.termination_head is not None:
        losses["termination_loss"] = F.binary_cross_entropy_with_logits(
            model.termination(z[1:], context), batch.terminated, weight=batch.weight
        )
        total = total + config.termination_coef * losses["termination_loss"]
    metrics = {name: loss.detach() for name, loss in losses.items()}
    metrics["total_loss"] = total.detach()
    priority = None
    if config.prioritized_replay:
        priority = _priority(config, model.regression.decode(q.detach()), target)
    return ModelLoss(total, z.detach(), metrics, priority)


def rho_powers(config: TDMPC2Config, device: torch.device) -> Tensor:
    """ρ^t for t = 0..H, `(H + 1, 1)`."""
    return config.rho ** torch.arange(config.horizon + 1, device=device)[:, None]


def _over_time(config: TDMPC2Config, loss: Tensor, weight: Tensor | None) -> Tensor:
    """(1/H)·Σ_t ρ^t·mean_b of element-wise losses `(H, B)`, importance-weighted if given."""
    if weight is not None:
        loss = loss * weight
    return (rho_powers(config, loss.device)[:-1] * loss).mean(1).sum() / config.horizon


def _priority(config: TDMPC2Config, q: Tensor, target: Tensor) -> Tensor:
    """Σ_t ρ^t·mean_i |Q̂_i − y| for each row, `(B,)`."""
    error = (q - target).abs().mean(0)
    return (rho_powers(config, error.device)[:-1] * error).sum(0)


def policy_loss(
    config: TDMPC2Config,
    model: WorldModel,
    latents: Tensor,
    task: Tensor | None,
    value_scale: Tensor,
    noise: UpdateNoise,
    values: Tensor | None = None,
) -> PolicyLoss:
    """−mean_{t=0..H} ρ^t·mean_b[Q/S + α·entropy bonus], a ~ p(z_t), Q = mean of two (Eq. 4).

    S, an average of the 5-95 percentile range of Q at t = 0, moves first. Only the policy's
    parameters receive gradients. With `entropy_tuning=target`, Q is not scaled, and α is learned
    beside: its loss is log α·(entropy − target), target = −A (Haarnoja et al., 2018).

    Where `latents` is only a part of the batch, `values` is Q at t = 0 of the whole.
    """
    # Differs from the official code of 2024-26: the task embedding is frozen here, as in
    # the paper's code; there its gradient leaked into the next model step.
    context = model.context(task).detach()
    sample, q = _policy_values(model, latents, context, noise)
    values = q[0].detach() if values is None else values
    value_scale = moved_value_scale(value_scale, values, config.tau)
    log_alpha, powers = model.policy_log_alpha, rho_powers(config, q.device)
    if log_alpha is None:
        objective = q / value_scale + config.entropy_coef * sample.entropy_bonus
        loss = -(powers * objective).mean()
    else:
        objective = q + log_alpha.exp().detach() * sample.entropy_bonus
        surplus = sample.entropy_bonus.detach() + _num_actions(sample, context)
        loss = log_alpha * surplus.mean() - (powers * objective).mean()
    metrics = {
        "pi_loss": loss.detach(),
        "pi_scale": value_scale,
        "pi_entropy_bonus": sample.entropy_bonus.detach().mean(),
        "q_mean": q.detach().mean(),
    }
    if log_alpha is not None:
        metrics["pi_alpha"] = log_alpha.detach().exp()
    return PolicyLoss(loss, value_scale, metrics)


@torch.no_grad()
def first_values(
    model: WorldModel, latents: Tensor, task: Tensor | None, noise: UpdateNoise
) -> Tensor:
    """Q at t = 0 as `policy_loss` computes it for a part of a batch, `(B,)`."""
    dropout = None if noise.policy_dropout is None else noise.policy_dropout[:, :1]
    first = noise._replace(policy=noise.policy[:1], policy_dropout=dropout)
    return _policy_values(model, latents[:1], model.context(task), first)[1][0]


def _policy_values(
    model: WorldModel, latents: Tensor, context: TaskContext, noise: UpdateNoise
) -> tuple[PolicySample, Tensor]:
    """Actions of the prior, and the mean of two Q-functions at them `(T, B)`."""
    sample = model.pi(latents, noise.policy, context)
    q_output = model.q(
        latents,
        sample.action,
        context,
        heads=noise.policy_heads,
        dropout=noise.policy_dropout,
        frozen=True,
    )
    return sample, model.regression.decode(q_output).mean(0)


def _num_actions(sample: PolicySample, context: TaskContext) -> Tensor | float:
    """A, the valid action dimensions of each row `(B,)`, or of all."""
    if context.action_mask is None:
        return float(sample.action.shape[-1])
    return context.action_mask.sum(-1)


def moved_value_scale(scale: Tensor, q: Tensor, tau: float) -> Tensor:
    """S + τ(max(1, P95 − P5) − S) with linearly interpolated percentiles of `q (B,)`."""
    ordered = q.sort().values
    low, high = (percentile(ordered, share) for share in VALUE_PERCENTILES)
    return scale.lerp((high - low).clamp(min=1.0), tau)
