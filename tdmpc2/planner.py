"""Planning with MPPI in latent space, batched over environments (paper, Section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import PlanNoise
from tdmpc2.world_model import TaskContext, WorldModel


class Plan(NamedTuple):
    """Result of one planning call.

    Attributes:
        action: `(B, A)`, to be executed now.
        mean: `(H, B, A)`, the final mean, which warm-starts the next call.
        std: `(H, B, A)`, the final standard deviation.
    """

    action: Tensor
    mean: Tensor
    std: Tensor


def estimate_value(
    model: WorldModel,
    latent: Tensor,
    actions: Tensor,
    context: TaskContext,
    discount: Tensor,
    noise: Tensor,
    heads: Tensor | None,
    dropout: Tensor | None = None,
) -> Tensor:
    """Value of action sequences: Σ_{t<H} γ^t r̂_t + γ^H·mean of two Q(z_H, a ~ p(z_H)).

    Args:
        model: the world model.
        latent: `(B, N, L)`, where the sequences start.
        actions: `(H, B, N, A)`.
        context: with a dimension for the samples.
        discount: `(B, 1)`.
        noise: `(B, N, A)`, of the terminal policy action.
        heads: indices of the Q-functions to average; all when None.
        dropout: factors for the Q-functions; none when None.

    Returns:
        `(B, N)`; NaN values become 0.
    """
    latents = [latent]
    for action in actions:
        latents.append(model.next(latents[-1], action, context))
    horizon = len(actions)
    weights = discount ** torch.arange(horizon + 1, device=discount.device)[:, None, None]
    rewards = model.regression.decode(
        model.reward(torch.stack(latents[:-1]), actions, context)
    )  # (H, B, N): one evaluation for all steps
    action = model.pi(latents[-1], noise, context).action
    q = model.regression.decode(
        model.q(latents[-1], action, context, heads=heads, dropout=dropout)
    ).mean(0)
    if model.termination_head is not None:
        ended = torch.sigmoid(model.termination(torch.stack(latents[1:]), context)) > 0.5
        alive = 1.0 - ended.float().cumsum(0).clamp(max=1.0)
        rewards = torch.cat([rewards[:1], rewards[1:] * alive[:-1]])
        q = q * alive[-1]
    total = (weights[:-1] * rewards).sum(0) + weights[-1] * q
    return torch.nan_to_num(total, nan=0.0)


def policy_trajectories(
    model: WorldModel, latent: Tensor, noise: Tensor, context: TaskContext
) -> Tensor:
    """Action sequences `(H, B, P, A)` of the policy prior from latents `(B, L)`.

    Args:
        model: the world model.
        latent: current latents.
        noise: `(H, B, P, A)`.
        context: with a dimension for the samples.
    """
    horizon, batch, num, _ = noise.shape
    actions = torch.empty_like(noise)
    if num == 0:
        return actions
    latent = latent[:, None].expand(batch, num, -1)
    for t in range(horizon):
        actions[t] = model.pi(latent, noise[t], context).action
        if t + 1 < horizon:
            latent = model.next(latent, actions[t], context)
    return actions


@torch.inference_mode()
def plan(
    config: TDMPC2Config,
    model: WorldModel,
    obs: Tensor,
    context: TaskContext,
    discount: Tensor,
    previous_mean: Tensor,
    noise: PlanNoise,
    *,
    min_std: float,
) -> Plan:
    """One planning call for a batch of environments.

    Each iteration samples action sequences around (μ, σ), joins those of the policy prior,
    and refits (μ, σ) to the elites, weighted by exp(temperature·(value − best value)). The
    action is the first of one elite drawn in proportion to its weight.

    Args:
        config: planning hyperparameters.
        model: the world model.
        obs: `(B, *obs_shape)`.
        context: of the environments.
        discount: `(B,)`.
        previous_mean: `(H, B, A)`, the warm start: the last plan's mean already shifted by
            one decision, zeros for an environment that begins an episode.
        noise: every random draw of the call.
        min_std: least standard deviation.
    """
    latent = model.encode(obs, context, noise.shift)
    context, discount = context.over_samples(), discount[:, None]
    pi_actions = policy_trajectories(model, latent, noise.policy, context)
    num_pi = pi_actions.shape[2]
    start = latent[:, None].expand(-1, config.num_samples, -1)
    mask = 1.0 if context.action_mask is None else context.action_mask[:, 0]

    mean = previous_mean
    std = torch.full_like(mean, config.max_std)
    actions = torch.empty(
        config.horizon, latent.shape[0], config.num_samples, mean.shape[-1], device=latent.device
    )
    actions[:, :, :num_pi] = pi_actions
    for i in range(noise.samples.shape[0]):
        drawn = mean[:, :, None] + std[:, :, None] * noise.samples[i]
        actions[:, :, num_pi:] = drawn.clamp(-1, 1)
        if context.action_mask is not None:
            actions = actions * context.action_mask
        value = estimate_value(
            model,
            start,
            actions,
            context,
            discount,
            noise.terminal_policy[i],
            None if noise.heads is None else noise.heads[i],
            None if noise.dropout is None else noise.dropout[i],
        )
        elite_value, elite_index = torch.topk(value, config.num_elites, dim=1)
        chosen = elite_index[None, :, :, None].expand(*actions.shape[:2], -1, actions.shape[-1])
        elites = actions.gather(2, chosen)
        score = torch.softmax(config.temperature * elite_value, dim=1)
        weight = score[None, :, :, None]
        new_mean = (weight * elites).sum(2)
        spread = (weight * (elites - new_mean[:, :, None]).square()).sum(2).sqrt()
        mean = (config.momentum * mean + (1 - config.momentum) * new_mean) * mask
        std = spread.clamp(min_std, config.max_std) * mask

    # Gumbel-max: argmax(ln w − ln E) with E ~ Exp(1) draws an elite with probability w.
    winner = (score.log() - noise.elite.log()).argmax(1)
    batch = torch.arange(len(winner), device=winner.device)
    action = elites[0, batch, winner]
    if noise.action is not None:
        action = action + std[0] * noise.action
    return Plan(action.clamp(-1, 1), mean, std)
