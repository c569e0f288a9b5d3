"""The world model of DreamerV3: encoder, RSSM, decoder, reward and continue heads, and its loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import MLP, make_regression
from baselines.dreamerv3.rssm import RSSM, State
from tdmpc2.common.replay.types import Sequences
from tdmpc2.regression import symlog


class WorldModel(nn.Module):
    """Networks of the world model for state observations.

    Heads take the features [deter, stoch] of a state, `(..., state_dim)`.

    Args:
        config: sizes.
        obs_dim, action_dim: sizes O and A of observation and action.
    """

    def __init__(self, config: DreamerV3Config, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        c = config
        self.encoder = MLP(obs_dim, c.encoder_layers, c.encoder_units)
        self.rssm = RSSM(c, c.encoder_units, action_dim)
        self.decoder = MLP(c.state_dim, c.decoder_layers, c.decoder_units, [obs_dim])
        self.reward_head = MLP(c.state_dim, c.head_layers, c.head_units, [c.num_bins], zero=True)
        self.continue_head = MLP(c.state_dim, c.head_layers, c.head_units, [1])
        self.regression = make_regression(c)

    def encode(self, obs: Tensor) -> Tensor:
        """Return embeddings `(..., encoder_units)` of symlog observations, from x `(..., O)`."""
        return self.encoder.trunk(symlog(obs))

    def reward(self, features: Tensor) -> Tensor:
        """Return expected rewards `(...)` of features `(..., state_dim)`."""
        return self.regression.decode(self.reward_head(features)[0])

    @torch.no_grad()
    def goes_on(self, features: Tensor) -> Tensor:
        """Return 1 where the predicted continue probability exceeds 0.5, else 0; `(...)`."""
        return (self.continue_head(features)[0][..., 0] > 0).float()


class ModelLoss(NamedTuple):
    """Result of `model_loss`.

    Attributes:
        loss: the scalar loss `()`.
        state: `(L, B, ...)`, detached posterior states.
        metrics: scalar tensors by name.
    """

    loss: Tensor
    state: State
    metrics: dict[str, Tensor]


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) = Σ_{s,c} p·(ln p − ln q) in nats, summed over all S categoricals.

    Args:
        log_p: ln p, `(..., S, C)`.
        log_q: ln q, `(..., S, C)`.

    Returns:
        `(...)`.
    """
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def balanced_divergence(
    posterior: Tensor, prior: Tensor, free: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the two KL losses with free nats (KL balancing) and the KL itself.

    L_dyn = max(free, KL(sg(q) ‖ p)),  L_rep = max(free, KL(q ‖ sg(p))),

    with posterior q, prior p and stop-gradient sg: L_dyn trains the prior, L_rep the posterior.

    Args:
        posterior: ln q, `(..., S, C)`.
        prior: ln p, `(..., S, C)`.
        free: free nats: below this KL, gradients are zero.

    Returns:
        L_dyn, L_rep and the KL without gradient, `(...)` each.
    """
    dynamics = divergence(posterior.detach(), prior)
    representation = divergence(posterior, prior.detach())
    kl = dynamics.detach()
    return dynamics.clamp(min=free), representation.clamp(min=free), kl


def model_loss(
    config: DreamerV3Config, model: WorldModel, batch: Sequences, uniform: Tensor
) -> ModelLoss:
    """Compute the world model loss (DreamerV3 paper v1, section "World Model Learning").

    L = mean_{t,b} [L_obs + L_reward + L_continue + β_dyn·L_dyn + β_rep·L_rep]

        L_obs      = Σ_i (decoder(s)_i − symlog(x_i))²
        L_reward   = cross-entropy of the reward head with the two-hot target of r
        L_continue = binary cross-entropy of the continue head with 1 − terminated
        L_dyn      = max(1, KL(sg(q) ‖ p))
        L_rep      = max(1, KL(q ‖ sg(p)))

    with posterior q(z_t | h_t, x_t), prior p(z_t | h_t) and (β_dyn, β_rep) = (0.5, 0.1).

    Args:
        config: loss scales and free nats.
        model: the networks.
        batch: sequences of shape `(L, B)`.
        uniform: `(L, B, S)`, uniform noise for sampling the posterior states.
    """
    rssm = model.rssm
    embed = model.encode(batch.obs)
    state, posterior = rssm.observe(batch.action, embed, batch.first, uniform)
    dynamics, representation, kl = balanced_divergence(
        posterior, rssm.prior(state.deter), config.free_nats
    )
    features = state.features
    decoded = model.decoder(features)[0]
    logits = model.continue_head(features)[0][..., 0]
    losses = {
        "obs_loss": (decoded - symlog(batch.obs)).square().sum(-1),
        "reward_loss": model.regression.loss(model.reward_head(features)[0], batch.reward),
        "continue_loss": F.binary_cross_entropy_with_logits(
            logits, 1 - batch.terminated, reduction="none"
        ),
        "dyn_loss": dynamics,
        "rep_loss": representation,
    }
    scales = {"dyn_loss": config.dyn_scale, "rep_loss": config.rep_scale}
    loss = sum(scales.get(name, 1.0) * each.mean() for name, each in losses.items())
    assert isinstance(loss, Tensor)
    metrics = {name: each.detach().mean() for name, each in losses.items()}
    metrics |= {"kl": kl.mean(), "model_loss": loss.detach()}
    return ModelLoss(loss, state.detach(), metrics)
