"""Planning with MPPI in latent space, batched over environments (paper, Section 3.2).

Shapes: B environments, H decisions (the horizon), N samples, P of them from the policy prior,
E elites, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.ranking import largest
from tdmpc2.common.replay.types import to_device
from tdmpc2.noise import IterationNoise, PlanNoise
from tdmpc2.planning_interfaces import PlanningConfig, PlanningModel
from tdmpc2.world_model import TaskContext


class Plan(NamedTuple):
    """Result of one planning call.

    Attributes:
        action: `(B, A)`, the action to execute.
        mean: `(H, B, A)`, the final mean μ, from which `warm_start` initializes the next call.
        std: `(H, B, A)`, the final standard deviation σ.
    """

    action: Tensor
    mean: Tensor
    std: Tensor


def estimate_value(
    model: PlanningModel,
    latent: Tensor,
    actions: Tensor,
    context: TaskContext,
    discount: Tensor,
    noise: Tensor,
    heads: Tensor | None,
    dropout: Tensor | None = None,
) -> Tensor:
    """Estimate the value of action sequences (paper, Section 3.2).

    V = Σ_{t=0}^{H−1} γ^t·R(z_t, a_t) + γ^H·mean_{i ∈ heads} Q_i(z_H, a_H),
    z_{t+1} = d(z_t, a_t), a_H ~ p(z_H). In episodic tasks, rewards and the terminal value are
    masked after the first latent whose predicted termination probability exceeds 0.5.

    Args:
        model: the world model.
        latent: `(B, N, latent_dim)`, initial latents; `(B, 1, latent_dim)` if all sequences of an
            environment share one, which the first layers then multiply only once.
        actions: `(H, B, N, A)`.
        context: task context with a sample dimension (`TaskContext.over_samples`).
        discount: `(B, 1)`, γ of each environment.
        noise: `(B, N, A)`, standard normal, for the terminal action a_H.
        heads: `(2,)`, indices of the Q-functions to average; all if None.
        dropout: `(K, B, N, mlp_dim)`, dropout factors of the Q-functions; no dropout if None.

    Returns:
        Values `(B, N)`; NaN is replaced by 0.
    """
    latents = [latent]
    for action in actions:
        latents.append(model.next(latents[-1], action, context))
    horizon = len(actions)
    weights = discount ** torch.arange(horizon + 1, device=discount.device)[:, None, None]
    action = model.pi(latents[-1], noise, context).action
    choice = {"heads": heads, "dropout": dropout}
    if gpu_forms.wanted(actions.device):  # one large product instead of several small ones
        z = torch.stack([z.expand(*latents[-1].shape) for z in latents])
        out = model.reward_and_q(z, torch.cat([actions, action[None]]), context, **choice)
        decoded = model.regression.decode(out)
        rewards, q = decoded[:horizon], decoded[horizon:].mean(0)
    else:  # products that fit a CPU's cache
        rewards = torch.stack(
            [
                model.regression.decode(model.reward(z, action, context))
                for z, action in zip(latents[:-1], actions, strict=True)
            ]
        )  # (H, B, N)
        q = model.regression.decode(model.q(latents[-1], action, context, **choice)).mean(0)
    if model.termination_head is not None:
        ended = torch.sigmoid(model.termination(torch.stack(latents[1:]), context)) > 0.5
        alive = 1.0 - ended.float().cumsum(0).clamp(max=1.0)
        rewards = torch.cat([rewards[:1], rewards[1:] * alive[:-1]])
        q = q * alive[-1]
    total = (weights[:-1] * rewards).sum(0) + weights[-1] * q
    return torch.nan_to_num(total, nan=0.0)


def policy_trajectories(
    model: PlanningModel, latent: Tensor, noise: Tensor, context: TaskContext
) -> Tensor:
    """Roll out the policy prior in the model and return its action sequences `(H, B, P, A)`.

    a_t ~ p(z_t), z_{t+1} = d(z_t, a_t).

    Args:
        model: the world model.
        latent: `(B, latent_dim)`, current latents z_0.
        noise: `(H, B, P, A)`, standard normal.
        context: task context with a sample dimension (`TaskContext.over_samples`).
    """
    horizon, batch, num, _ = noise.shape
    if num == 0:
        return torch.empty_like(noise)
    latent, actions = latent[:, None].expand(batch, num, -1), []
    for t in range(horizon):
        actions.append(model.pi(latent, noise[t], context).action)
        if t + 1 < horizon:
            latent = model.next(latent, actions[t], context)
    return torch.stack(actions)


def warm_start(
    previous: Tensor | None, first: np.ndarray, horizon: int, action_dim: int, device: torch.device
) -> Tensor:
    """Return the initial mean `(H, B, A)` of a plan: the previous mean, shifted by one decision.

    μ_t = μ^prev_{t+1} for t < H − 1 and μ_{H−1} = 0; all zeros for environments at the first step
    of an episode. Only μ is warm-started; σ starts at `max_std`.

    Args:
        previous: `(H, B, A)`, final mean of the previous plan; None if there is none.
        first: `(B,)`, True for environments at the first step of an episode.
        horizon: H.
        action_dim: A.
        device: device of the result.

    Raises:
        ValueError: the previous plan has another number of environments or another horizon.
    """
    start = torch.zeros(horizon, len(first), action_dim, device=device)
    if previous is None or first.all():
        return start
    if previous.shape != start.shape:
        raise ValueError(
            f"cannot warm-start {len(first)} environments with horizon {horizon}: the previous "
            f"plan has {previous.shape[1]} environments and horizon {previous.shape[0]}"
        )
    continues = to_device(~first, device)[:, None]
    start[:-1] = torch.where(continues, previous[1:], start[:-1])
    return start


class Refit(NamedTuple):
    """Result of one iteration of MPPI.

    Attributes:
        mean, std: `(H, B, A)`, μ and σ refitted to the elites.
        first: `(B, E, A)`, first actions of the elites.
        score: `(B, E)`, weights w of the elites, which sum to 1.
    """

    mean: Tensor
    std: Tensor
    first: Tensor
    score: Tensor


def iterate(
    config: PlanningConfig,
    model: PlanningModel,
    latent: Tensor,
    context: TaskContext,
    discount: Tensor,
    pi_actions: Tensor,
    mean: Tensor,
    std: Tensor,
    min_std: Tensor,
    draws: IterationNoise,
) -> Refit:
    """Run one iteration of MPPI (paper, Section 3.2; Williams et al., 2015).

    Sample: a^i = clip(μ + σ·ε^i, −1, 1) for the Gaussian samples, joined with the P sequences of
    the policy prior. Values V^i come from `estimate_value`. Refit to the E sequences of largest V:

        w^i = exp(τ·(V^i − V_max)) / Σ_j exp(τ·(V^j − V_max))
        μ ← m·μ + (1 − m)·μ̂,  μ̂ = Σ_i w^i·a^i
        σ ← clip(sqrt(Σ_i w^i·(a^i − μ̂)²), σ_min, σ_max)

    with temperature τ and momentum m. In multi-task learning, actions, μ and σ are multiplied by
    the action mask.

    Args:
        config: MPPI hyperparameters.
        model: the world model.
        latent: `(B, 1, latent_dim)`, current latents.
        context: task context with a sample dimension (`TaskContext.over_samples`).
        discount: `(B,)`, γ of each environment.
        pi_actions: `(H, B, P, A)`, sequences of the policy prior.
        mean: `(H, B, A)`, μ of the previous iteration.
        std: `(H, B, A)`, σ of the previous iteration.
        min_std: `()`, σ_min.
        draws: noise of this iteration.
    """
    sampled = (mean[:, :, None] + std[:, :, None] * draws.samples).clamp(-1, 1)
    actions = torch.cat([pi_actions, sampled], dim=2)
    if context.action_mask is not None:
        actions = actions * context.action_mask
    noise = (draws.terminal_policy, draws.heads, draws.dropout)
    value = estimate_value(model, latent, actions, context, discount[:, None], *noise)
    elite_value, elite_index = largest(value, config.num_elites)
    index = elite_index[None, :, :, None].expand(*actions.shape[:2], -1, actions.shape[-1])
    elites = actions.gather(2, index)
    score = torch.softmax(config.temperature * elite_value, dim=1)
    weight = score[None, :, :, None]
    new_mean = (weight * elites).sum(2)
    spread = (weight * (elites - new_mean[:, :, None]).square()).sum(2).sqrt()
    mean = config.momentum * mean + (1 - config.momentum) * new_mean
    std = torch.maximum(spread, min_std).clamp(max=config.max_std)
    if context.action_mask is not None:
        mask = context.action_mask[:, 0]
        mean, std = mean * mask, std * mask
    return Refit(mean, std, elites[0], score)


def prepare(
    model: PlanningModel, obs: Tensor, context: TaskContext, noise: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute what all iterations share: current latents and sequences of the policy prior.

    Args:
        model: the world model.
        obs: `(B, *obs_shape)`.
        context: task context of the environments.
        noise: `(H, B, P, A)`, standard normal, for the policy prior.
        shift: `(B, 2)`, pixel offsets; None for states.

    Returns:
        Latents `(B, 1, latent_dim)` and action sequences `(H, B, P, A)`.
    """
    latent = model.encode(obs, context, shift)
    sequences = policy_trajectories(model, latent, noise, context.over_samples())
    return latent[:, None], sequences


def choose(
    refit: Refit, elite_noise: Tensor, action_noise: Tensor | None, *, clip: bool = True
) -> Tensor:
    """Choose the action `(B, A)` to execute: the first action of an elite sampled with weight w.

    a = a^i_0 + σ_0·ε with i ~ Categorical(w); ε = 0 in evaluation.

    Args:
        refit: result of the last iteration.
        elite_noise: `(B, E)`, Exp(1) samples.
        action_noise: `(B, A)`, standard normal exploration noise ε; None in evaluation.
        clip: whether to clip the action to [-1, 1].
    """
    # Gumbel-max: argmax_i(ln w_i − ln x_i) with x_i ~ Exp(1) is a sample of Categorical(w).
    elite = (refit.score.log() - elite_noise.log()).argmax(1)
    batch = torch.arange(elite.shape[0], device=elite.device)
    action = refit.first[batch, elite]
    if action_noise is not None:
        action = action + refit.std[0] * action_noise
    return action.clamp(-1, 1) if clip else action


@torch.no_grad()
def plan(
    config: PlanningConfig,
    model: PlanningModel,
    obs: Tensor,
    context: TaskContext,
    discount: Tensor,
    previous_mean: Tensor,
    noise: PlanNoise,
    *,
    min_std: float | Tensor,
    clip: bool = True,
    preparation: Callable[..., tuple[Tensor, Tensor]] = prepare,
    iteration: Callable[..., Refit] = iterate,
    choice: Callable[..., Tensor] = choose,
) -> Plan:
    """Plan one action for each of a batch of environments.

    Starts from (μ, σ) = (`previous_mean`, `max_std`), calls `iterate` once per iteration and
    chooses the action with `choose`.

    Args:
        config: MPPI hyperparameters.
        model: the world model.
        obs: `(B, *obs_shape)`.
        context: task context of the environments.
        discount: `(B,)`, γ of each environment.
        previous_mean: `(H, B, A)`, initial μ from `warm_start`: already shifted by one decision,
            zeros for environments at the first step of an episode.
        noise: all noise of the call; the first dimension of `noise.samples` is the number of
            iterations.
        min_std: σ_min, a number or `()`.
        clip: whether to clip actions with exploration noise to [-1, 1].
        preparation: `prepare`, or a function with the same results.
        iteration: `iterate`, or a function with the same results.
        choice: `choose`, or a function with the same results.
    """
    latent, pi_actions = preparation(model, obs, context, noise.policy, noise.shift)
    context = context.over_samples()
    if not isinstance(min_std, Tensor):
        min_std = torch.full((), min_std, device=latent.device)
    mean, std = previous_mean, torch.full_like(previous_mean, config.max_std)
    for draws in noise.iterations():
        refit = iteration(
            config,
            model,
            latent,
            context,
            discount,
            pi_actions,
            mean,
            std,
            min_std,
            draws,
        )
        mean, std = refit.mean, refit.std
    return Plan(choice(refit, noise.elite, noise.action, clip=clip), mean, std)
