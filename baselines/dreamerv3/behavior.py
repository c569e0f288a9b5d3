"""Actor and critic of DreamerV3, learned from imagined trajectories."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import MLP
from baselines.dreamerv3.rssm import State
from baselines.dreamerv3.world_model import WorldModel
from tdmpc2.common.numerics.optim import percentile
from tdmpc2.regression import DiscreteRegression

PERCENTILES = (0.05, 0.95)
HALF_LOG_2PI_E = 0.5 * math.log(2 * math.pi * math.e)


class Behavior(nn.Module):
    """Actor, critic, and the critic's slowly moving copy.

    Args:
        config: sizes.
        action_dim: A.
    """

    def __init__(self, config: DreamerV3Config, action_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.actor = MLP(c.state_dim, c.head_layers, c.head_units, [action_dim, action_dim])
        self.critic = MLP(c.state_dim, c.head_layers, c.head_units, [c.num_bins], zero=True)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.regression = DiscreteRegression(c.num_bins, c.vmin, c.vmax)

    def policy(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(..., A)`: tanh(μ), and 0.1 + 0.9·σ(x + 2)."""
        mean, raw = self.actor(features)
        low, high = self.config.actor_min_std, self.config.actor_max_std
        return torch.tanh(mean), low + (high - low) * torch.sigmoid(raw + 2)

    def act(self, features: Tensor, noise: Tensor) -> Tensor:
        """Sampled actions `(..., A)`; they may lie beyond [-1, 1]."""
        mean, std = self.policy(features)
        return mean + std * noise


class Noise(NamedTuple):
    """Draws of an imagination of N steps from B states.

    Attributes:
        action: `(N, B, A)`, standard normal.
        state: `(N, B, S)`, uniform.
    """

    action: Tensor
    state: Tensor


class Outcome(NamedTuple):
    """Gradients of actor and critic, the moved range of returns, and what is recorded."""

    actor: tuple[Tensor, ...]
    critic: tuple[Tensor, ...]
    range: Tensor
    metrics: dict[str, Tensor]


class Imagined(NamedTuple):
    """What `imagine` returns.

    Attributes:
        features: `(N + 1, B, F)`, of the states.
        std: `(N, B, A)`, of the actions between them.
    """

    features: Tensor
    std: Tensor


def imagine(model: WorldModel, behavior: Behavior, start: State, noise: Noise) -> Imagined:
    """States along actions of the actor.

    Gradients flow from states into earlier actions through the model, but not on through actions in
    between that answer to these.

    Args:
        model: the world model.
        behavior: whose actor acts.
        start: `(B, …)`.
        noise: draws.
    """
    state, features, stds = start, [start.features], []
    for action_noise, uniform in zip(noise.action, noise.state, strict=True):
        mean, std = behavior.policy(features[-1].detach())
        state = model.rssm.imagine(state, mean + std * action_noise, uniform)
        features.append(state.features)
        stds.append(std)
    return Imagined(torch.stack(features), torch.stack(stds))


def lambda_returns(reward: Tensor, value: Tensor, discount: Tensor, lam: float) -> Tensor:
    """R_t = r_{t+1} + γ_{t+1}·((1 − λ)·v_{t+1} + λ·R_{t+1}), with R_N = v_N.

    Args:
        reward: `(N, B)`, of states 1 to N.
        value: `(N, B)`, likewise.
        discount: `(N, B)`, likewise; 0 where an episode has ended.
        lam: λ.

    Returns:
        `(N, B)`, of states 0 to N − 1.
    """
    returns, last = [], value[-1]
    for r, v, g in zip(reward.flip(0), value.flip(0), discount.flip(0), strict=True):
        last = r + g * ((1 - lam) * v + lam * last)
        returns.append(last)
    return torch.stack(returns[::-1])


def moved_range(past: Tensor, returns: Tensor, decay: float) -> Tensor:
    """Exponential moving averages `(2,)` of the 5th and 95th percentile of returns."""
    ordered = returns.flatten().sort().values
    now = torch.stack([percentile(ordered, share) for share in PERCENTILES])
    return decay * past + (1 - decay) * now


def learn(
    config: DreamerV3Config,
    model: WorldModel,
    behavior: Behavior,
    start: State,
    alive: Tensor,
    past_range: Tensor,
    noise: Noise,
) -> Outcome:
    """Gradients of actor and critic in imagination from given states; nothing is changed.

    Actor: −mean w·[(R − v) / max(1, S) + 3e-4·entropy], back-propagated through the dynamics.
    Critic: mean w·[two-hot cross-entropy with R, and with the slow critic's value]. Weights w
    are cumulative products of γ and of whether the episode goes on.

    Args:
        config: scales.
        model: the world model.
        behavior: actor and critics.
        start: `(B, …)`, without graph.
        alive: `(B,)`, 0 where the episode has ended already.
        past_range: `(2,)`, of returns; see `moved_range`.
        noise: draws.
    """
    c, regression = config, behavior.regression
    features, std = imagine(model, behavior, start, noise)
    before, after = features[:-1].detach(), features[1:]
    # One pass of the critic serves both losses; each takes the gradients that are its own.
    logits = behavior.critic(features)[0]
    value = regression.decode(logits)
    goes_on = torch.cat([alive[None], model.goes_on(after.detach())])
    returns = lambda_returns(
        model.reward(after), value[1:], c.discount * goes_on[1:], c.return_lambda
    )
    # Differs from the official code: it divides these weights by γ, so that its losses and
    # gradients of actor and critic are larger by 1/γ = 333/332. Adam cancels it up to its ε.
    weight = torch.cumprod(c.discount * goes_on, 0)[:-1]
    moved = moved_range(past_range, returns.detach(), c.return_decay)
    spread = (moved[1] - moved[0]).clamp(min=1.0)

    advantage = (returns - value[:-1]) / spread
    entropy = (std.log() + HALF_LOG_2PI_E).sum(-1)
    actor_loss = -(weight * (advantage + c.entropy_coef * entropy)).mean()

    with torch.no_grad():
        slow = regression.decode(behavior.slow_critic(before)[0])
    errors = regression.loss(logits[:-1], returns.detach())
    errors = errors + c.slow_coef * regression.loss(logits[:-1], slow)
    critic_loss = (weight * errors).mean()

    critic = torch.autograd.grad(critic_loss, list(behavior.critic.parameters()), retain_graph=True)
    actor = torch.autograd.grad(actor_loss, list(behavior.actor.parameters()))
    metrics = {
        "actor_loss": actor_loss,
        "critic_loss": critic_loss,
        "imagined_return": returns.mean(),
        "return_range": spread,
        "entropy": entropy.mean(),
    }
    return Outcome(actor, critic, moved, {name: x.detach() for name, x in metrics.items()})
