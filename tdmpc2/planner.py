"""Planning with MPPI in latent space, batched over environments (paper, Section 3.2).

Shapes: B environments, H decisions (the horizon), N samples, P of them from the policy prior,
E elites, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.replay.types import to_device
from tdmpc2.elites import Refit, choose, refit
from tdmpc2.joint_heads import JointWeights
from tdmpc2.noise import IterationNoise, PlanNoise
from tdmpc2.planning_interfaces import PlanningConfig, PlanningModel
from tdmpc2.task_context import TaskContext


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
    weights: JointWeights | None = None,
    product: Tensor | None = None,
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
        weights: on GPUs, parameters of reward head and Q-functions, if they are known.
        product: on GPUs, `Prepared.product` of the latents, if it is known.

    Returns:
        Values `(B, N)`; NaN is replaced by 0.
    """
    latents = model.rollout(latent, actions, context, product)
    few_kernels, horizon = gpu_forms.wanted(actions.device), len(actions)
    powers = discount ** torch.arange(horizon + 1, device=discount.device)[:, None, None]
    action = model.pi(latents[-1], noise, context).action
    choice: dict[str, Any] = {"heads": heads, "dropout": dropout}
    rewards: Any  # (H, B, N), or a list of tensors (B, N)
    if few_kernels:  # one large product instead of several small ones
        num = horizon + model.num_chosen(heads)
        inputs = chosen(latents, num), chosen([*actions, action], num)
        out = model.reward_and_q(*inputs, context, weights=weights, **choice)
        # Decoded one by one, so that one kernel decodes and sums all outputs of a sample.
        decoded = [model.regression.decode(one) for one in out]
        rewards, q = decoded[:horizon], sum(decoded[horizon:]) / (num - horizon)
    else:  # products that fit a CPU's cache
        rewards = torch.stack(
            [
                model.regression.decode(model.reward(z, action, context))
                for z, action in zip(latents[:-1], actions, strict=True)
            ]
        )  # (H, B, N)
        q = model.regression.decode(model.q(latents[-1], action, context, **choice)).mean(0)
    if model.termination_head is not None:
        episodic: Any = model  # has `termination`; see `PlanningModel.termination_head`
        ended = torch.sigmoid(episodic.termination(torch.stack(latents[1:]), context)) > 0.5
        alive = 1.0 - ended.float().cumsum(0).clamp(max=1.0)
        if few_kernels:
            rewards = [rewards[0], *map(torch.mul, rewards[1:], alive[:-1])]
        else:
            rewards = torch.cat([rewards[:1], rewards[1:] * alive[:-1]])
        q = q * alive[-1]
    if few_kernels:
        total = sum(map(torch.mul, powers[:-1], rewards), powers[-1] * q)
    else:
        total = (powers[:-1] * rewards).sum(0) + powers[-1] * q
    return torch.nan_to_num(total, nan=0.0)


def chosen(parts: Sequence[Tensor], num: int) -> Tensor:
    """Return `num` of the parts, stacked: all, and the last one as often as there is room.

    Computed element by element, so that a GPU needs no kernel for it alone.

    Args:
        parts: tensors whose shapes broadcast.
        num: number of results, at least that of parts.
    """
    *others, result = parts
    place = torch.arange(num, device=result.device).view(-1, *[1] * result.dim())
    for i, part in reversed(list(enumerate(others))):
        result = torch.where(place == i, part, result)
    return result


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
    shape = (horizon, len(first), action_dim)
    if previous is None or first.all():
        return torch.zeros(shape, device=device)
    if previous.shape != shape:
        raise ValueError(
            f"cannot warm-start {len(first)} environments with horizon {horizon}: the previous "
            f"plan has {previous.shape[1]} environments and horizon {previous.shape[0]}"
        )
    start = torch.cat([previous[1:], previous.new_zeros(1, *shape[1:])])
    if first.any():
        start = torch.where(to_device(first, device)[:, None], 0.0, start)
    return start


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
    weights: JointWeights | None = None,
    product: Tensor | None = None,
) -> Refit:
    """Run one iteration of MPPI (paper, Section 3.2; Williams et al., 2015).

    Sample: a^i = clip(μ + σ·ε^i, −1, 1) for the Gaussian samples, joined with the P sequences of
    the policy prior. Values V^i come from `estimate_value`. Refit μ and σ to the E sequences of
    largest V (`elites.refit`). In multi-task learning, actions, μ and σ are multiplied by the
    action mask.

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
        weights: `Prepared.weights` of this iteration.
        product: `Prepared.product`.
    """
    sampled = (mean[:, :, None] + std[:, :, None] * draws.samples).clamp(-1, 1)
    actions = torch.cat([pi_actions, sampled], dim=2)
    if context.action_mask is not None:
        actions = actions * context.action_mask
    noise = (draws.terminal_policy, draws.heads, draws.dropout)
    known = (weights, product)
    value = estimate_value(model, latent, actions, context, discount[:, None], *noise, *known)
    result = refit(config, actions, value, mean, min_std)
    if context.action_mask is not None:
        mask = context.action_mask[:, 0]
        result = result._replace(mean=result.mean * mask, std=result.std * mask)
    return result


class Prepared(NamedTuple):
    """What all iterations of a plan share.

    Attributes:
        latent: `(B, 1, latent_dim)`, current latents.
        sequences: `(H, B, P, A)`, action sequences of the policy prior.
        product: on GPUs, product of the latents and the weights of the dynamics' first layer.
        weights: on GPUs, parameters of reward head and Q-functions; see `iteration_weights`.
    """

    latent: Tensor
    sequences: Tensor
    product: Tensor | None = None
    weights: JointWeights | None = None


def prepare(
    model: PlanningModel,
    obs: Tensor,
    context: TaskContext,
    noise: Tensor,
    shift: Tensor | None,
    heads: Tensor | None = None,
) -> Prepared:
    """Compute what all iterations share.

    Args:
        model: the world model.
        obs: `(B, *obs_shape)`.
        context: task context of the environments.
        noise: `(H, B, P, A)`, standard normal, for the policy prior.
        shift: `(B, 2)`, pixel offsets; None for states.
        heads: `(I, 2)`, indices of the Q-functions of every iteration; None for all.
    """
    latent = model.encode(obs, context, shift)
    sequences = policy_trajectories(model, latent, noise, context.over_samples())
    latent = latent[:, None]
    if not gpu_forms.wanted(obs.device):
        return Prepared(latent, sequences)
    product, weights = model.first_product(latent), model.joint_weights(len(noise), heads)
    return Prepared(latent, sequences, product, weights)


def iteration_weights(prepared: Prepared, heads: Tensor | None, i: int) -> JointWeights | None:
    """Return the parameters of reward head and Q-functions for iteration i.

    Args:
        prepared: result of `prepare`.
        heads: indices of the Q-functions that `prepare` was given.
        i: number of the iteration.
    """
    if prepared.weights is None or heads is None:
        return prepared.weights
    return prepared.weights.iteration(i, heads.dim() - 2)


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
    preparation: Callable[..., Prepared] = prepare,
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
    prepared = preparation(model, obs, context, noise.policy, noise.shift, noise.heads)
    context = context.over_samples()
    if not isinstance(min_std, Tensor):
        min_std = torch.full((), min_std, device=prepared.latent.device)
    mean, std = previous_mean, torch.full_like(previous_mean, config.max_std)
    for i, draws in enumerate(noise.iterations()):
        result = iteration(
            config,
            model,
            prepared.latent,
            context,
            discount,
            prepared.sequences,
            mean,
            std,
            min_std,
            draws,
            iteration_weights(prepared, noise.heads, i),
            prepared.product,
        )
        mean, std = result.mean, result.std
    return Plan(choice(result, noise.elite, noise.action, clip=clip), mean, std)
