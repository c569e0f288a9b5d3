"""Floating-point operations of the baselines' calls: a lower bound on compute time.

Only matrix multiplications count; a multiplication and an addition are two operations. The counts
are the minimum that the arithmetic requires, not what the code executes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.dreamerv3.config import DreamerV3Config
    from baselines.sac_config import SACConfig
    from baselines.tdmpc.config import TDMPCConfig


def sac_update_gflop(config: SACConfig, obs_dim: int, action_dim: int) -> float:
    """Count the operations of one gradient update of SAC, in GFLOP.

    The actor loss needs no weight gradients of the critics.

    Args:
        config: config of SAC.
        obs_dim: observation dimension.
        action_dim: action dimension.
    """
    width, square = config.hidden_dim, (config.num_hidden - 1) * config.hidden_dim**2
    actor = obs_dim * width + square + 2 * width * action_dim
    critic = (obs_dim + action_dim) * width + square + width
    target = actor + 2 * critic
    critics = 2 * (3 * critic - (obs_dim + action_dim) * width)
    policy = 3 * actor - obs_dim * width + 2 * (2 * critic - obs_dim * width)
    return 2e-9 * config.batch_size * (target + critics + policy)


def _tdmpc_layers(config: TDMPCConfig, action_dim: int) -> tuple[int, int, int, int]:
    """Count the multiplications of dynamics, reward, policy and one Q-function of TD-MPC."""
    width, latent = config.mlp_dim, config.latent_dim
    assert latent is not None
    first, square = (latent + action_dim) * width, width * width
    dynamics = first + square + width * latent
    policy = latent * width + square + width * action_dim
    return dynamics, first + square + width, policy, first + square + width


def tdmpc_plan_gflop(config: TDMPCConfig, action_dim: int) -> float:
    """Count the operations of one planning call of TD-MPC at its full horizon, in GFLOP."""
    dynamics, reward, policy, q = _tdmpc_layers(config, action_dim)
    assert config.iterations is not None
    samples = config.num_samples + config.num_pi_samples
    each = samples * (config.horizon * (dynamics + reward) + policy + 2 * q)
    prior = config.num_pi_samples * config.horizon * (policy + dynamics)
    return 2e-9 * (config.iterations * each + prior)


def tdmpc_update_gflop(config: TDMPCConfig, obs_dim: int, action_dim: int) -> float:
    """Count the operations of one gradient update of TD-MPC, in GFLOP.

    Args:
        config: config of TD-MPC.
        obs_dim: observation dimension.
        action_dim: action dimension.
    """
    dynamics, reward, policy, q = _tdmpc_layers(config, action_dim)
    assert config.latent_dim is not None
    encoder = (obs_dim + config.latent_dim) * config.enc_dim
    horizon = config.horizon
    target = horizon * (2 * encoder + policy + 2 * q)
    model = 3 * (encoder + horizon * (dynamics + reward + 2 * q)) - obs_dim * config.enc_dim
    actor = (horizon + 1) * (3 * policy - config.latent_dim * config.mlp_dim + 2 * 2 * q)
    return 2e-9 * config.batch_size * (target + model + actor)


def dreamerv3_update_gflop(config: DreamerV3Config, obs_dim: int, action_dim: int) -> float:
    """Count the operations of one gradient update of DreamerV3, in GFLOP.

    The update trains the world model, then actor and critic in imagination. Imagined dynamics,
    rewards and values need gradients with respect to their inputs only. The critic is evaluated
    once for both losses; the actor is evaluated once for its actions and their entropy. No
    gradient flows through the actor to its input states.

    Args:
        config: config of DreamerV3.
        obs_dim: observation dimension.
        action_dim: action dimension.
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
    continuation = mlp(state, c.head_layers, c.head_units, 1)
    actor = mlp(state, c.head_layers, c.head_units, 2 * action_dim)
    first = state * c.head_units
    starts = c.batch_size * c.batch_length
    networks = encoder + inputs + prior + posterior + decoder + reward + continuation
    model = starts * (3 * networks - obs_dim * c.encoder_units)
    step = 2 * (inputs + prior) + 2 * reward + continuation
    step += 3 * actor - first
    # Values with gradients for their inputs, weight gradients of the critic, the target critic.
    step += 2 * reward + (2 * reward - first) + reward
    return 2e-9 * (model + starts * (c.imagination * step + reward))
