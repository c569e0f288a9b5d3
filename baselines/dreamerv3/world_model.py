"""DreamerV3's world model: encoder, recurrent states, and what is predicted from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import MLP
from baselines.dreamerv3.rssm import RSSM, State
from tdmpc2.common.replay.types import Sequences
from tdmpc2.regression import DiscreteRegression, symlog


class WorldModel(nn.Module):
    """Networks of the world model, for states as observations.

    Args:
        config: sizes.
        obs_dim, action_dim: of the task.
    """

    def __init__(self, config: DreamerV3Config, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        c = config
        self.encoder = MLP(obs_dim, c.encoder_layers, c.encoder_units)
        self.rssm = RSSM(c, c.encoder_units, action_dim)
        self.decoder = MLP(c.state_dim, c.decoder_layers, c.decoder_units, [obs_dim])
        self.reward_head = MLP(c.state_dim, c.head_layers, c.head_units, [c.num_bins], zero=True)
        self.continue_head = MLP(c.state_dim, c.head_layers, c.head_units, [1])
        self.regression = DiscreteRegression(c.num_bins, c.vmin, c.vmax)

    def encode(self, obs: Tensor) -> Tensor:
        """Embeddings `(..., E)` of observations `(..., O)`."""
        return self.encoder.trunk(symlog(obs))

    def reward(self, features: Tensor) -> Tensor:
        """Expected rewards `(...)` in states of these features."""
        return self.regression.decode(self.reward_head(features)[0])

    @torch.no_grad()
    def goes_on(self, features: Tensor) -> Tensor:
        """`(...)`: 1 where the episode more likely goes on than not, else 0."""
        return (self.continue_head(features)[0][..., 0] > 0).float()


class ModelLoss(NamedTuple):
    """Outcome of the world model's loss.

    Attributes:
        loss: scalar.
        state: `(L, B, …)`, posteriors without graph.
        metrics: what is recorded.
    """

    loss: Tensor
    state: State
    metrics: dict[str, Tensor]


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, summed over the categoricals: `(..., S, C)` to `(...)`."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def balanced_divergence(
    posterior: Tensor, prior: Tensor, free: float
) -> tuple[Tensor, Tensor, Tensor]:
    """KL with free nats that trains the prior only, the same for the posterior only, and the KL.

    Args:
        posterior: log-probabilities `(..., S, C)`.
        prior: likewise.
        free: nats below which neither is trained.
    """
    dynamics = divergence(posterior.detach(), prior)
    representation = divergence(posterior, prior.detach())
    kl = dynamics.detach()
    return dynamics.clamp(min=free), representation.clamp(min=free), kl


def model_loss(
    config: DreamerV3Config, model: WorldModel, batch: Sequences, uniform: Tensor
) -> ModelLoss:
    """Mean of what is predicted, 0.5·max(1, KL(sg q ‖ p)) and 0.1·max(1, KL(q ‖ sg p)).

    q is the posterior, p the prior. Predicted are the symlog observation (squared error), the
    reward (two-hot cross-entropy), and whether the episode goes on.

    Args:
        config: scales.
        model: the networks.
        batch: `(L, B)`.
        uniform: `(L, B, S)`, draws of the posterior states.
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
    parts = {
        "obs_loss": (decoded - symlog(batch.obs)).square().sum(-1),
        "reward_loss": model.regression.loss(model.reward_head(features)[0], batch.reward),
        "continue_loss": F.binary_cross_entropy_with_logits(
            logits, 1 - batch.terminated, reduction="none"
        ),
        "dyn_loss": dynamics,
        "rep_loss": representation,
    }
    scales = {"dyn_loss": config.dyn_scale, "rep_loss": config.rep_scale}
    loss = sum(scales.get(name, 1.0) * part.mean() for name, part in parts.items())
    assert isinstance(loss, Tensor)
    metrics = {name: part.detach().mean() for name, part in parts.items()}
    metrics |= {"kl": kl.mean(), "model_loss": loss.detach()}
    return ModelLoss(loss, state.detach(), metrics)
