"""The losses of TD-MPC2 as pure functions of model, batch and noise (paper, Section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.optim import percentile
from tdmpc2.common.replay.types import Batch
from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import UpdateNoise
from tdmpc2.prior import PolicySample
from tdmpc2.task_context import TaskContext
from tdmpc2.world_model import WorldModel

VALUE_PERCENTILES = (0.05, 0.95)


class ModelLoss(NamedTuple):
    """Result of `model_loss`.

    Attributes:
        loss: the scalar loss `()`.
        latents: `(H + 1, B, latent_dim)`, the detached latents z_0..z_H of the rollout.
        metrics: scalar tensors by name.
        priority: `(B,)`, new priorities of the rows; None without prioritized replay.
    """

    loss: Tensor
    latents: Tensor
    metrics: dict[str, Tensor]
    priority: Tensor | None


class PolicyLoss(NamedTuple):
    """Result of `policy_loss`.

    Attributes:
        loss: the scalar loss `()`.
        value_scale: `()`, the value scale S, updated with this batch.
        metrics: scalar tensors by name.
    """

    loss: Tensor
    value_scale: Tensor
    metrics: dict[str, Tensor]


@torch.no_grad()
def td_target(
    model: WorldModel,
    batch: Batch,
    context: TaskContext,
    discount: Tensor,
    noise: UpdateNoise,
    latent: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the latents of the next observations and the TD-targets (paper, Section 3.1).

    y_t = r_t + γ·(1 − d_t)·min_{i ∈ {i1, i2}} Q̄_i(z̄_{t+1}, a'),
    z̄_{t+1} = h(s_{t+1}), a' ~ p(z̄_{t+1}), where d_t is 1 if the episode terminated, Q̄ are the
    target networks, and i1 ≠ i2 are drawn once per update.

    Args:
        model: the world model.
        batch: sub-trajectories of H transitions.
        context: task embedding and action mask of the rows.
        discount: `(B,)`, γ of each row.
        noise: noise of this update.
        latent: z̄_1..z̄_H if they are known.

    Returns:
        z̄_1..z̄_H `(H, B, latent_dim)` and y `(H, B)`.
    """
    if latent is None:
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
    """Compute the joint-embedding prediction, reward and value loss (paper, Eq. 3).

    L = (1/H)·Σ_{t=0}^{H−1} ρ^t·[c_z·mean_j (z_{t+1,j} − z̄_{t+1,j})² + c_r·l(R(z_t, a_t), r_t)
        + c_q·(1/N)·Σ_{i=1}^{N} l(Q_i(z_t, a_t), y_t)], averaged over the batch,

    with z_0 = h(s_0) and z_{t+1} = d(z_t, a_t). Gradients flow through the whole rollout; z̄ and y
    (`td_target`) are constants. l is `Regression.loss`; (c_z, c_r, c_q) = (20, 0.1, 0.1) and
    ρ = 0.5 by default. Episodic tasks add c_d·BCE of the termination logits at z_1..z_H, without
    ρ. With prioritized replay, each row is multiplied by its importance weight.

    Args:
        config: loss coefficients, ρ and H.
        model: the world model.
        batch: sub-trajectories: observations `(H + 1, B, *obs_shape)`, actions `(H, B, A)`,
            rewards `(H, B)`.
        discount: `(B,)`, γ of each row.
        noise: noise of this update.
    """
    context = model.context(batch.task)
    joint = gpu_forms.wanted(batch.obs.device)
    first, known = _encode(model, batch, context, noise, joint=joint)
    next_latents, target = td_target(model, batch, context, discount, noise, known)
    if first is None:
        shift = None if noise.shift is None else noise.shift[0]
        first = model.encode(batch.obs[0], context, shift)
    z = torch.stack(model.rollout(first, batch.action, context))

    consistency = (z[1:] - next_latents).square().mean(-1)
    inputs = (z[:-1], batch.action)
    if joint:
        latents, actions = (x.expand(1 + model.num_chosen(None), *x.shape) for x in inputs)
        out = model.reward_and_q(latents, actions, context, dropout=noise.model_dropout)
        q, is_reward = out[1:], torch.arange(len(out), device=out.device)[:, None, None] == 0
        errors = model.regression.loss(out, torch.where(is_reward, batch.reward, target))
        reward, value = errors[0], errors[1:].mean(0)
    else:
        reward = model.regression.loss(model.reward(*inputs, context), batch.reward)
        q = model.q(*inputs, context, dropout=noise.model_dropout)
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


def _encode(
    model: WorldModel, batch: Batch, context: TaskContext, noise: UpdateNoise, *, joint: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return z_0 and the constants z̄_1..z̄_H from one pass of the encoder; None if not `joint`.

    The backward pass then includes the rows of z̄, whose gradients are zero: more arithmetic, but
    fewer kernels. Images are encoded separately, because there arithmetic decides.

    Args:
        model: the world model.
        batch: sub-trajectories of H transitions.
        context: task embedding and action mask of the rows.
        noise: noise of this update.
        joint: whether to encode all observations at once.
    """
    if not joint or noise.shift is not None:
        return None, None
    encoded = model.encode(batch.obs, context)
    return encoded[0], encoded[1:].detach()


def rho_powers(config: TDMPC2Config, device: torch.device) -> Tensor:
    """Return ρ^t for t = 0..H, shape `(H + 1, 1)`."""
    return config.rho ** torch.arange(config.horizon + 1, device=device)[:, None]


def _over_time(config: TDMPC2Config, loss: Tensor, weight: Tensor | None) -> Tensor:
    """Return (1/H)·Σ_t ρ^t·mean_b(w_b·l_{t,b}) of losses l `(H, B)`; w = 1 without weights."""
    if weight is not None:
        loss = loss * weight
    return (rho_powers(config, loss.device)[:-1] * loss).mean(1).sum() / config.horizon


def _priority(config: TDMPC2Config, q: Tensor, target: Tensor) -> Tensor:
    """Return the priorities Σ_t ρ^t·mean_i |Q_i(z_t, a_t) − y_t| of the rows, `(B,)`."""
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
    """Compute the maximum-entropy policy loss (paper, Eq. 4).

    L_p = −mean_{t=0..H} ρ^t·mean_b[Q(z_t, a_t)/S + α·ent(z_t)],  a_t ~ p(z_t),

    where Q is the mean of two randomly chosen online Q-functions, ent(z_t) the entropy bonus of
    the prior (`MaxEntropyPrior`), α = `entropy_coef`, and S the value scale (`moved_value_scale`),
    which is updated with Q at t = 0 before it is used. Only the policy's parameters receive
    gradients.

    With `entropy_tuning=target`, Q is not scaled and α is learned: the loss log α·mean(ent + A)
    is added, where −A is the target entropy (Haarnoja et al., 2018).

    Args:
        config: ρ, entropy coefficient and rate of the value scale.
        model: the world model.
        latents: `(H + 1, B, latent_dim)`, detached latents of the model's rollout.
        task: `(B,)` task indices; None for one task.
        value_scale: `()`, S before this batch.
        noise: noise of this update.
        values: `(B',)`, Q at t = 0 of the whole batch (`first_values`) if `latents` holds only a
            shard or micro-batch of it; computed from `latents` if None.
    """
    # Differs from the official code of 2024-26: the task embedding is frozen here, as in the
    # first official release. Without that, its gradient leaks into the next model step.
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
    """Return Q(z_0, a_0) `(B,)` as `policy_loss` computes it, for micro-batches.

    Args:
        model: the world model.
        latents: `(H + 1, B, latent_dim)`, of which only z_0 is used.
        task: `(B,)` task indices; None for one task.
        noise: noise of the update, for these rows.
    """
    dropout = None if noise.policy_dropout is None else noise.policy_dropout[:, :1]
    first = noise._replace(policy=noise.policy[:1], policy_dropout=dropout)
    return _policy_values(model, latents[:1], model.context(task), first)[1][0]


def _policy_values(
    model: WorldModel, latents: Tensor, context: TaskContext, noise: UpdateNoise
) -> tuple[PolicySample, Tensor]:
    """Sample actions from the prior and return them with the mean of two Q-functions `(T, B)`."""
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
    """Return A, the number of valid action dimensions: `(B,)` if actions are masked."""
    if context.action_mask is None:
        return float(sample.action.shape[-1])
    return context.action_mask.sum(-1)


def moved_value_scale(scale: Tensor, q: Tensor, tau: float) -> Tensor:
    """Return the value scale after one batch: S ← S + τ·(max(1, P95(Q) − P5(Q)) − S).

    Percentiles are linearly interpolated. The scale starts at 1 and keeps the entropy coefficient
    independent of the size of returns (Hafner et al., 2023; paper, Section 3.1).

    Args:
        scale: `()`, S before the batch.
        q: `(B,)`, values at t = 0.
        tau: rate τ of the moving average.
    """
    ordered = q.sort().values
    low, high = (percentile(ordered, share) for share in VALUE_PERCENTILES)
    return scale.lerp((high - low).clamp(min=1.0), tau)
