"""Floating-point operations of planning and updates of TD-MPC2: a lower bound on compute time.

Only matrix multiplications count; a multiplication and an addition are two operations. The counts
are the minimum that the arithmetic requires, not what the code executes: only the two sampled
Q-functions are evaluated, the terms that all samples share in the first step are computed once,
and the policy prior's action sequences are evaluated once per plan.
"""

from __future__ import annotations

from tdmpc2.config import TDMPC2Config


def plan_gflop(config: TDMPC2Config, action_dim: int) -> float:
    """Count the operations of one planning call in one environment, in GFLOP."""
    width, latent, out = config.mlp_dim, config.latent_dim, config.num_bins
    first, square = (latent + action_dim) * width, width * width
    dynamics, reward = square + width * latent, square + width * out  # without the first layers
    policy = latent * width + square + 2 * width * action_dim
    q = min(config.num_q, 2) * (first + square + width * out)
    step = 2 * first + dynamics + reward
    start = 2 * action_dim * width + dynamics + reward
    samples = (config.num_samples - config.num_pi_samples) * (start + (config.horizon - 1) * step)
    each = samples + config.num_samples * (policy + q)
    prior = config.num_pi_samples * config.horizon * (policy + step)
    return 2e-9 * (config.num_iterations(action_dim) * each + prior)


def update_gflop(config: TDMPC2Config, obs_dim: int, action_dim: int) -> float:
    """Count the operations of one gradient update, in GFLOP.

    The backward pass of a layer is two matrix multiplications.

    Args:
        config: config of TD-MPC2.
        obs_dim: observation dimension.
        action_dim: action dimension.
    """
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
