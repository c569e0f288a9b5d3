"""Planning with MPPI in latent space, batched over environments (paper, Section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.replay.types import to_device
from tdmpc2.noise import IterationNoise, PlanNoise
from tdmpc2.prior import PolicySample
from tdmpc2.world_model import TaskContext


class PlanningConfig(Protocol):
    """What MPPI is told, of TD-MPC2 or of TD-MPC."""

    @property
    def num_elites(self) -> int:
        """Sequences that the next mean is made of."""

    @property
    def temperature(self) -> float:
        """Of their weights."""

    @property
    def momentum(self) -> float:
        """Share of the last mean in the next."""

    @property
    def max_std(self) -> float:
        """Greatest standard deviation, with which planning begins."""


class PlanningModel(Protocol):
    """What MPPI asks of a model; see `WorldModel`, which can also tell when episodes end."""

    @property
    def termination_head(self) -> Any:
        """None where episodes don't end early."""

    @property
    def regression(self) -> Any:
        """Turns outputs for rewards and values into scalars (`decode`)."""

    def encode(self, obs: Tensor, context: TaskContext, shift: Tensor | None) -> Tensor:
        """Latents."""

    def next(self, latent: Tensor, action: Tensor, context: TaskContext) -> Tensor:
        """Next latents."""

    def reward(self, latent: Tensor, action: Tensor, context: TaskContext) -> Tensor:
        """Outputs for rewards."""

    def pi(self, latent: Tensor, noise: Tensor, context: TaskContext) -> PolicySample:
        """Actions of the policy prior."""

    def q(self, latent: Tensor, action: Tensor, context: TaskContext, **choice: Any) -> Tensor:
        """Outputs for values `(K, …)`, which are averaged."""


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
    model: PlanningModel,
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
        latent: `(B, N, L)`, where the sequences start; `(B, 1, L)` where all start alike, whose
            share of the first layers is then computed once.
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
    rewards = torch.stack(
        [
            model.regression.decode(model.reward(z, action, context))
            for z, action in zip(latents[:-1], actions, strict=True)
        ]
    )  # (H, B, N)
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
    model: PlanningModel, latent: Tensor, noise: Tensor, context: TaskContext
) -> Tensor:
    """Action sequences `(H, B, P, A)` of the policy prior from latents `(B, L)`.

    Args:
        model: the world model.
        latent: current latents.
        noise: `(H, B, P, A)`.
        context: with a dimension for the samples.
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
    """The last plan shifted by one decision, zeros at its end and where an episode begins.

    Args:
        previous: `(H, B, A)`, mean of the last plan; None if there was none.
        first: `(B,)`, whether each environment is at the first step of an episode.
        horizon: H.
        action_dim: A.
        device: of the plan.

    Raises:
        ValueError: the last plan was for other environments, or of another length.
    """
    start = torch.zeros(horizon, len(first), action_dim, device=device)
    if previous is None or first.all():
        return start
    if previous.shape != start.shape:
        raise ValueError(
            f"{len(first)} environments, but the last plan had {previous.shape[1]} "
            f"(and {previous.shape[0]} decisions; now {horizon})"
        )
    goes_on = to_device(~first, device)[:, None]
    start[:-1] = torch.where(goes_on, previous[1:], start[:-1])
    return start


class Refit(NamedTuple):
    """Outcome of one iteration of MPPI.

    Attributes:
        mean, std: `(H, B, A)`, refitted to the elites.
        first: `(B, E, A)`, the first actions of the elites.
        score: `(B, E)`, their weights.
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
    """One iteration of MPPI: sample around (μ, σ), join the prior's sequences, refit (μ, σ).

    The elites are weighted by exp(temperature·(value − best value)).

    Args:
        config: planning hyperparameters.
        model: the world model.
        latent: `(B, 1, L)`.
        context: with a dimension for the samples.
        discount: `(B,)`.
        pi_actions: `(H, B, P, A)` of the policy prior.
        mean: `(H, B, A)`, μ of the iteration before.
        std: `(H, B, A)`, σ of it.
        min_std: `()`, least standard deviation.
        draws: of this iteration.
    """
    drawn = (mean[:, :, None] + std[:, :, None] * draws.samples).clamp(-1, 1)
    actions = torch.cat([pi_actions, drawn], dim=2)
    if context.action_mask is not None:
        actions = actions * context.action_mask
    draw = (draws.terminal_policy, draws.heads, draws.dropout)
    value = estimate_value(model, latent, actions, context, discount[:, None], *draw)
    elite_value, elite_index = torch.topk(value, config.num_elites, dim=1)
    chosen = elite_index[None, :, :, None].expand(*actions.shape[:2], -1, actions.shape[-1])
    elites = actions.gather(2, chosen)
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
    """What all iterations share: latents `(B, 1, L)` and the prior's sequences `(H, B, P, A)`.

    Args:
        model: the world model.
        obs: `(B, *obs_shape)`.
        context: of the environments.
        noise: `(H, B, P, A)`, of the prior.
        shift: `(B, 2)` pixel offsets; None for states.
    """
    latent = model.encode(obs, context, shift)
    sequences = policy_trajectories(model, latent, noise, context.over_samples())
    return latent[:, None], sequences


def choose(
    refit: Refit, elite_noise: Tensor, action_noise: Tensor | None, *, clip: bool = True
) -> Tensor:
    """The action `(B, A)` to take: the first of an elite, drawn in proportion to its weight.

    Args:
        refit: of the last iteration.
        elite_noise: `(B, E)`, Exp(1) draws.
        action_noise: `(B, A)`, standard normal draws; None without exploration.
        clip: whether noise stays within [-1, 1].
    """
    # Gumbel-max: argmax(ln w − ln E) with E ~ Exp(1) draws an elite with probability w.
    winner = (refit.score.log() - elite_noise.log()).argmax(1)
    batch = torch.arange(winner.shape[0], device=winner.device)
    action = refit.first[batch, winner]
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
    min_std: float,
    clip: bool = True,
    preparation: Callable[..., tuple[Tensor, Tensor]] = prepare,
    iteration: Callable[..., Refit] = iterate,
) -> Plan:
    """One planning call for a batch of environments.

    Iterates `iterate` from the warm start and σ = max_std, then takes what `choose` draws.

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
        clip: whether exploration noise stays within [-1, 1].
        preparation: `prepare`, or a compiled form of it.
        iteration: `iterate`, or a compiled form of it.
    """
    latent, pi_actions = preparation(model, obs, context, noise.policy, noise.shift)
    context = context.over_samples()
    least = torch.full((), min_std, device=latent.device)
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
            least,
            draws,
        )
        mean, std = refit.mean, refit.std
    return Plan(choose(refit, noise.elite, noise.action, clip=clip), mean, std)
