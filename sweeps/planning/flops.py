"""How many operations planning and learning cannot do without: the floor of what a run costs.

Matrix products only, a multiplication and an addition counted as two operations. Counted as
the arithmetic allows, not as the code does it: two Q-functions where two are drawn, what all
samples share of the first step once, the prior's sequences evaluated once a plan. The configs
of the baselines come without their types, since imports point down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def sac_update_gflop(config: Any, obs_dim: int, action_dim: int) -> float:
    """One gradient step of SAC; the critics have no weight gradients in the actor's step."""
    width, square = config.hidden_dim, (config.num_hidden - 1) * config.hidden_dim**2
    actor = obs_dim * width + square + 2 * width * action_dim
    critic = (obs_dim + action_dim) * width + square + width
    target = actor + 2 * critic
    critics = 2 * (3 * critic - (obs_dim + action_dim) * width)
    policy = 3 * actor - obs_dim * width + 2 * (2 * critic - obs_dim * width)
    return 2e-9 * config.batch_size * (target + critics + policy)


def _tdmpc_layers(config: Any, action_dim: int) -> tuple[int, int, int, int]:
    """Multiplications of dynamics, reward, policy and one Q-function."""
    width, latent = config.mlp_dim, config.latent_dim
    assert latent is not None
    first, square = (latent + action_dim) * width, width * width
    dynamics = first + square + width * latent
    policy = latent * width + square + width * action_dim
    return dynamics, first + square + width, policy, first + square + width


def tdmpc_plan_gflop(config: Any, action_dim: int) -> float:
    """One planning call of TD-MPC at its full horizon."""
    dynamics, reward, policy, q = _tdmpc_layers(config, action_dim)
    assert config.iterations is not None
    samples = config.num_samples + config.num_pi_samples
    each = samples * (config.horizon * (dynamics + reward) + policy + 2 * q)
    prior = config.num_pi_samples * config.horizon * (policy + dynamics)
    return 2e-9 * (config.iterations * each + prior)


def tdmpc_update_gflop(config: Any, obs_dim: int, action_dim: int) -> float:
    """One gradient step of TD-MPC."""
    dynamics, reward, policy, q = _tdmpc_layers(config, action_dim)
    assert config.latent_dim is not None
    encoder = (obs_dim + config.latent_dim) * config.enc_dim
    horizon = config.horizon
    target = horizon * (2 * encoder + policy + 2 * q)
    model = 3 * (encoder + horizon * (dynamics + reward + 2 * q)) - obs_dim * config.enc_dim
    actor = (horizon + 1) * (3 * policy - config.latent_dim * config.mlp_dim + 2 * 2 * q)
    return 2e-9 * config.batch_size * (target + model + actor)


def dreamerv3_update_gflop(config: Any, obs_dim: int, action_dim: int) -> float:
    """One gradient step of DreamerV3: world model, then behavior in imagination.

    The imagined dynamics, rewards and values take gradients for their inputs only; the critic is
    evaluated once for both losses, the actor once to act and for its entropy. No gradient reaches
    the states that it answers to.
    """
    c, state = config, config.state_dim

    def mlp(in_dim: int, layers: int, units: int, out_dim: int) -> int:
        return in_dim * units + (layers - 1) * units**2 + units * out_dim

    inputs = (c.stoch_dim + action_dim) * c.hidden + (c.deter + c.hidden) * 3 * c.deter
    prior = c.deter * c.hidden + c.hidden * c.stoch_dim
    posterior = (c.deter + c.encoder_units) * c.hidden + c.hidden * c.stoch_dim
    encoder = mlp(obs_dim, c.encoder_layers, c.encoder_units, 0)
    decoder = mlp(state, c.decoder_layers, c.decoder_units, obs_dim)
    reward = mlp(state, c.head_layers, c.head_units, c.num_bins)
    goes_on = mlp(state, c.head_layers, c.head_units, 1)
    actor = mlp(state, c.head_layers, c.head_units, 2 * action_dim)
    first = state * c.head_units
    starts = c.batch_size * c.batch_length
    networks = encoder + inputs + prior + posterior + decoder + reward + goes_on
    model = starts * (3 * networks - obs_dim * c.encoder_units)
    step = 2 * (inputs + prior) + 2 * reward + goes_on
    step += 3 * actor - first
    step += (
        2 * reward + (2 * reward - first) + reward
    )  # values, the critic's gradients, the slow one
    return 2e-9 * (model + starts * (c.imagination * step + reward))


# Method → operations of one planning call (None: it doesn't plan) and of one gradient step.
COUNTS: dict[str, tuple[Callable[..., float] | None, Callable[..., float]]] = {
    "tdmpc2": (plan_gflop, update_gflop),
    "sac": (None, sac_update_gflop),
    "tdmpc": (tdmpc_plan_gflop, tdmpc_update_gflop),
    "dreamerv3": (None, dreamerv3_update_gflop),
}


def gflop_by_name(method: str, config: Any, obs_dim: int, action_dim: int) -> dict[str, float]:
    """GFLOP of what a method does again and again, by name."""
    plan, update = COUNTS[method]
    found = {"update": update(config, obs_dim, action_dim)}
    return found if plan is None else {"plan": plan(config, action_dim)} | found
