"""What the tests of the core share: small configurations, batches, and networks known by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, Episode
from tdmpc2.config import TDMPC2Config
from tdmpc2.world_model import WorldModel

# Mish is the identity in float32 from 20 on, so a network whose hidden values are all shifted
# up by this much is an affine map.
SHIFT = 32.0


def tiny_config(**overrides: Any) -> TDMPC2Config:
    """A model of a few thousand parameters with a planner of a few samples."""
    tiny = {
        "enc_dim": 12,
        "mlp_dim": 16,
        "latent_dim": 16,
        "num_q": 3,
        "batch_size": 6,
        "iterations": 2,
        "num_samples": 12,
        "num_elites": 4,
        "num_pi_samples": 3,
        "buffer_size": 500,
    }
    return TDMPC2Config.make(model_size="smoke", **{**tiny, **overrides})


def env_spec(
    obs_shape: tuple[int, ...] = (5,),
    action_dims: tuple[int, ...] = (2,),
    episode_lengths: tuple[int, ...] = (500,),
    *,
    episodic: bool = False,
) -> EnvSpec:
    """An environment's shapes; as many tasks as there are episode lengths."""
    return EnvSpec(
        obs_shape=obs_shape,
        action_dim=max(action_dims),
        episode_lengths=episode_lengths,
        action_repeats=(2,) * len(episode_lengths),
        action_dims=action_dims,
        task_names=tuple(f"task{i}" for i in range(len(episode_lengths))),
        episodic=episodic,
    )


THREE_TASKS = env_spec(action_dims=(3, 1, 2), episode_lengths=(500, 100, 1000))


def random_batch(config: TDMPC2Config, env: EnvSpec, seed: int = 0) -> Batch:
    """A batch with every task and, in episodic environments, some ends of episodes."""
    generator = torch.Generator().manual_seed(seed)
    h, b = config.horizon, config.batch_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    obs = normal(h + 1, b, *env.obs_shape)
    if env.pixels:
        obs = (obs * 60 + 128).clamp(0, 255).to(torch.uint8)
    task = torch.arange(b) % env.num_tasks
    valid = torch.arange(env.action_dim) < torch.tensor(env.action_dims)[task][:, None]
    terminated = torch.zeros(h, b)
    if env.episodic:
        terminated[-1, ::2] = 1.0
    return Batch(
        obs=obs,
        action=torch.tanh(normal(h, b, env.action_dim)) * valid,
        reward=normal(h, b),
        terminated=terminated,
        task=task if config.task_dim > 0 else None,
    )


def filled_replay(config: TDMPC2Config, env: EnvSpec, seed: int = 0) -> Replay:
    """A replay of random episodes of 12, 9, 15, … decisions, one for each task in turn."""
    rng = np.random.default_rng(seed)
    replay = Replay(
        config.buffer_size,
        config.horizon,
        env.obs_shape,
        env.action_dim,
        generator=torch.Generator().manual_seed(seed),
        obs_dtype=torch.uint8 if env.pixels else torch.float32,
        num_tasks=env.num_tasks,
        priorities=(config.per_alpha, config.per_beta) if config.prioritized_replay else None,
    )
    for i, length in enumerate((12, 9, 15)):
        task = i % env.num_tasks
        obs = rng.normal(size=(length + 1, *env.obs_shape))
        if env.pixels:
            obs = (obs * 60 + 128).clip(0, 255).astype(np.uint8)
        action = rng.uniform(-1, 1, (length, env.action_dim)).astype(np.float32)
        action[:, env.action_dims[task] :] = 0.0
        replay.add(
            Episode(
                obs=obs.astype(np.uint8 if env.pixels else np.float32),
                action=action,
                reward=rng.normal(size=length).astype(np.float32),
                terminated=env.episodic,
                task=task,
            )
        )
    return replay


def randomize_(model: WorldModel, seed: int = 0, std: float = 0.3) -> WorldModel:
    """Adds noise to every parameter, so that no head and no target network is trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)
    return model


def make_agent(
    config: TDMPC2Config | None = None, env: EnvSpec | None = None, seed: int = 0
) -> TDMPC2:
    """A tiny agent with weights away from their start."""
    agent = TDMPC2(config or tiny_config(), env or env_spec(), seed=seed)
    randomize_(agent.model, seed)
    return agent


# --- networks known by heart ---------------------------------------------------------

HAND_DISCOUNT = 0.5


def hand_agent(*, q_gain: float = 1.0, episodic: bool = False, **overrides: Any) -> TDMPC2:
    """An agent whose networks are affine maps of numbers, so that losses and plans are sums.

    For state s, latent z, action a (one dimension each) and head i:
        h = s,  d = z + a,  R = 2z − a,  Q_i = gain·((i + 1)·z + a),
        target Q_i = gain·((3 − i)·z + a + 1),  policy mean = tanh(z / 2),  termination logit =
        10·(z − 1.5); log σ of the maximum-entropy prior is −4; γ = 0.5.
    """
    config = tiny_config(
        **{
            "enc_dim": 2,
            "mlp_dim": 2,
            "latent_dim": 1,
            "num_q": 2,
            "latent_norm": "none",
            "hidden_norm": "none",
            "regression": "mse",
            "policy_prior": "gaussian_noise",
            "dropout": 0.0,
            "discount_min": HAND_DISCOUNT,
            "discount_max": HAND_DISCOUNT,
            **overrides,
        }
    )
    agent = TDMPC2(config, env_spec((1,), (1,), episodic=episodic), seed=0)
    model = agent.model
    _set_affine(_layers(model.encoder), [[1.0]])
    _set_affine(_layers(model.dynamics), [[1.0, 1.0]])
    _set_affine(_layers(model.reward_head), [[2.0, -1.0]])
    log_std = [[0.0]] if config.policy_prior == "max_entropy" else []
    _set_affine(_layers(model.policy), [[0.5], *log_std])
    if model.termination_head is not None:
        _set_affine(_layers(model.termination_head), [[10.0]], offset=-15.0)
    for i in range(config.num_q):
        _set_affine(_head(model.q_functions, i), [[i + 1.0, 1.0]], gain=q_gain)
        target = _head(model.target_q_functions, i)
        _set_affine(target, [[3.0 - i, 1.0]], gain=q_gain, offset=1.0)
    return agent


def _layers(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every linear layer of an MLP."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [(layer.weight, layer.bias) for layer in linear]


def _head(ensemble: nn.Module, i: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every linear layer of one Q-function."""
    layers = (ensemble.linear1, ensemble.linear2, ensemble.linear3)
    return [(layer.weight[i], layer.bias[i]) for layer in layers]


@torch.no_grad()
def _set_affine(
    layers: list[tuple[Tensor, Tensor]],
    rows: list[list[float]],
    *,
    gain: float = 1.0,
    offset: float = 0.0,
) -> None:
    """Makes an MLP without norms compute gain·(rows·x + offset)."""
    num = len(rows)
    first, *middle, last = layers
    first[0].zero_()[:num] = torch.tensor(rows)
    first[1].fill_(SHIFT)
    for weight, bias in middle:
        weight.copy_(torch.eye(len(weight)))
        bias.zero_()
    last[0].zero_()[:num, :num] = gain * torch.eye(num)
    last[1].fill_(gain * (offset - SHIFT))
