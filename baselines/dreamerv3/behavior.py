"""Actor and critic of DreamerV3 and their losses on imagined trajectories.

Shapes: N imagined steps from B start states, A action dimensions, F = `state_dim` features,
S categoricals.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import MLP, make_regression
from baselines.dreamerv3.rssm import State
from baselines.dreamerv3.world_model import WorldModel
from tdmpc2.common.numerics.optim import percentile

PERCENTILES = (0.05, 0.95)
HALF_LOG_2PI_E = 0.5 * math.log(2 * math.pi * math.e)


class Behavior(nn.Module):
    """Actor, critic and slow critic (an exponential moving average of the critic).

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
        self.regression = make_regression(c)

    def policy(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation `(..., A)` of the action at features `(..., F)`.

        From actor outputs (m, x): mean = tanh(m),
        std = std_min + (std_max − std_min)·sigmoid(x + 2), by default in [0.1, 1].
        """
        mean, raw = self.actor(features)
        low, high = self.config.actor_min_std, self.config.actor_max_std
        return torch.tanh(mean), low + (high - low) * torch.sigmoid(raw + 2)

    def act(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return mean + std·noise `(..., A)`, not clipped, with standard normal noise."""
        mean, std = self.policy(features)
        return mean + std * noise


class Noise(NamedTuple):
    """Noise of an imagined rollout.

    Attributes:
        action: `(N, B, A)`, standard normal, for actions.
        state: `(N, B, S)`, uniform in [0, 1), for states.
    """

    action: Tensor
    state: Tensor


class Outcome(NamedTuple):
    """Result of `learn`.

    Attributes:
        actor: gradients of the actor's parameters.
        critic: gradients of the critic's parameters.
        range: `(2,)`, percentiles of returns, updated with this batch; see `moved_range`.
        metrics: scalar tensors by name.
    """

    actor: tuple[Tensor, ...]
    critic: tuple[Tensor, ...]
    range: Tensor
    metrics: dict[str, Tensor]


class Imagined(NamedTuple):
    """An imagined rollout.

    Attributes:
        features: `(N + 1, B, F)`, features of the states 0..N.
        std: `(N, B, A)`, standard deviations of the actions at states 0..N − 1.
    """

    features: Tensor
    std: Tensor


def imagine(model: WorldModel, behavior: Behavior, start: State, noise: Noise) -> Imagined:
    """Roll out the actor in the world model: a_t ~ π(s_t), s_{t+1} ~ prior(s_t, a_t).

    Gradients flow from each state through the dynamics into earlier actions. The actor's input is
    detached, so that they do not flow through later actions into earlier states.

    Args:
        model: the world model.
        behavior: actor and critics.
        start: start states `(B, ...)`.
        noise: noise of the rollout.
    """
    state, features, stds = start, [start.features], []
    for action_noise, uniform in zip(noise.action, noise.state, strict=True):
        mean, std = behavior.policy(features[-1].detach())
        state = model.rssm.imagine(state, mean + std * action_noise, uniform)
        features.append(state.features)
        stds.append(std)
    return Imagined(torch.stack(features), torch.stack(stds))


def lambda_returns(reward: Tensor, value: Tensor, discount: Tensor, lam: float) -> Tensor:
    """Compute λ-returns: R_t = r_{t+1} + γ_{t+1}·((1 − λ)·v_{t+1} + λ·R_{t+1}), R_N = v_N.

    Source: DreamerV3 paper v1, section "Critic Learning".

    Args:
        reward: `(N, B)`, rewards r_1..r_N.
        value: `(N, B)`, values v_1..v_N.
        discount: `(N, B)`, γ_1..γ_N; 0 if the episode has ended at this state.
        lam: λ.

    Returns:
        R_0..R_{N−1}, `(N, B)`.
    """
    returns, next_return = [], value[-1]
    for r, v, g in zip(reward.flip(0), value.flip(0), discount.flip(0), strict=True):
        next_return = r + g * ((1 - lam) * v + lam * next_return)
        returns.append(next_return)
    return torch.stack(returns[::-1])


def moved_range(past: Tensor, returns: Tensor, decay: float) -> Tensor:
    """Update the moving averages of the 5th and 95th percentile of returns.

    (P5, P95) ← decay·(P5, P95) + (1 − decay)·percentiles of this batch. Returns are normalized by
    S = P95 − P5 (DreamerV3 paper v1, section "Actor Learning").

    Args:
        past: `(2,)`, averages before the batch.
        returns: λ-returns of the batch, any shape.
        decay: decay of the averages.
    """
    ordered = returns.flatten().sort().values
    current = torch.stack([percentile(ordered, share) for share in PERCENTILES])
    return decay * past + (1 - decay) * current


def learn(
    config: DreamerV3Config,
    model: WorldModel,
    behavior: Behavior,
    start: State,
    alive: Tensor,
    past_range: Tensor,
    noise: Noise,
) -> Outcome:
    """Compute gradients of actor and critic on imagined rollouts; no parameter is changed.

    Sections "Critic Learning" and "Actor Learning" of the DreamerV3 paper v1:

        L_actor  = −mean_{t,b} w_t·[(R_t − v_t) / max(1, S) + η·ent(s_t)]
        L_critic = mean_{t,b} w_t·[l(v_t, sg(R_t)) + c_slow·l(v_t, v̄_t)]
        w_t      = Π_{k=0}^{t} γ·c_k

    with λ-returns R_t, critic v, slow critic v̄, return range S = P95 − P5 (`moved_range`),
    predicted continuation c_k ∈ {0, 1}, c_0 = `alive`, entropy ent(s_t) of the Gaussian actor,
    two-hot cross-entropy l, η = 3e-4, c_slow = 1. The actor's gradient is backpropagated through
    the dynamics.

    Args:
        config: loss scales, γ and λ.
        model: the world model.
        behavior: actor and critics.
        start: detached start states `(B, ...)`.
        alive: `(B,)`, 0 if the episode has ended at the start state, else 1.
        past_range: `(2,)`, percentiles of returns before this batch; see `moved_range`.
        noise: noise of the rollout.
    """
    c, regression = config, behavior.regression
    features, std = imagine(model, behavior, start, noise)
    before, after = features[:-1].detach(), features[1:]
    # Both losses share one forward pass of the critic; gradients are taken separately.
    logits = behavior.critic(features)[0]
    value = regression.decode(logits)
    continues = torch.cat([alive[None], model.goes_on(after.detach())])
    returns = lambda_returns(
        model.reward(after), value[1:], c.discount * continues[1:], c.return_lambda
    )
    # Differs from the official code: there, weights are divided by γ, so that losses and gradients
    # of actor and critic are larger by 1/γ = 333/332. Adam cancels this factor up to its ε.
    weight = torch.cumprod(c.discount * continues, 0)[:-1]
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
