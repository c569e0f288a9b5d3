"""How many operations planning and learning cannot do without: the floor of `speed.py`.

Matrix products only, a multiplication and an addition counted as two operations. Counted as
the arithmetic allows, not as the code does it: two Q-functions where two are drawn, what all
samples share of the first step once, the prior's sequences evaluated once a plan.
"""

from __future__ import annotations

from tdmpc2.config import TDMPC2Config


def plan_gflop(config: TDMPC2Config, action_dim: int) -> float:
    """Operations of one planning call in one environment, in GFLOP."""
    width, latent, out = config.mlp_dim, config.latent_dim, config.num_bins
    first, square = (latent + action_dim) * width, width * width
    dynamics, reward = square + width * latent, square + width * out  # but for the first layers
    policy = latent * width + square + 2 * width * action_dim
    q = min(config.num_q, 2) * (first + square + width * out)
    step = 2 * first + dynamics + reward
    start = 2 * action_dim * width + dynamics + reward
    samples = (config.num_samples - config.num_pi_samples) * (start + (config.horizon - 1) * step)
    each = samples + config.num_samples * (policy + q)
    prior = config.num_pi_samples * config.horizon * (policy + step)
    return 2e-9 * (config.num_iterations(action_dim) * each + prior)


def update_gflop(config: TDMPC2Config, obs_dim: int, action_dim: int) -> float:
    """Operations of one gradient step, in GFLOP: a layer's backward pass is two products."""
    width, latent, out = config.mlp_dim, config.latent_dim, config.num_bins
    batch, horizon = config.batch_size, config.horizon
    first, square = (latent + action_dim) * width, width * width
    encoder = obs_dim * config.enc_dim + config.enc_dim * latent
    policy = latent * width + square + 2 * width * action_dim
    q, pair = first + square + width * out, min(config.num_q, 2)
    target = horizon * (encoder + policy + pair * q)
    model = 3 * horizon * (first + square + width * latent + first + square + width * out)
    model += 3 * horizon * config.num_q * q
    model += 3 * encoder - obs_dim * config.enc_dim  # observations need no gradient
    actor = (horizon + 1) * (3 * policy - latent * width + 2 * pair * q)
    return 2e-9 * batch * (target + model + actor)
