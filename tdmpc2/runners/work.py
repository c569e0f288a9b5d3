"""Size of a method's model and operations of its calls, for cost estimates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay.types import Episode, Transition
from tdmpc2.runners.registry import agent_class
from tdmpc2.runners.setup import make_replay

DECISIONS = 50  # of the random episodes that a counted update samples from


@cache
def gflop_of(method: str, config: Any, obs_dim: int, action_dim: int) -> dict[str, float]:
    """Return the operations of a method's calls, in GFLOP.

    They are those that the method declares (`BaseAgent.gflop`), or are counted in one call of `act`
    and one update on random data.

    Args:
        method: name of the method.
        config: hyperparameters.
        obs_dim: observation dimension.
        action_dim: action dimension.

    Returns:
        `{"plan": …, "update": …}`; `plan` is missing if acting costs next to nothing.
    """
    declared = agent_class(method).gflop(config, obs_dim, action_dim)
    return count_gflop(method, config, obs_dim, action_dim) if declared is None else declared


def count_gflop(method: str, config: Any, obs_dim: int, action_dim: int) -> dict[str, float]:
    """Count the operations of one call of `act` and of one update; see `gflop_of`.

    Args:
        method: name of the method.
        config: hyperparameters.
        obs_dim: observation dimension.
        action_dim: action dimension.
    """
    env = _env(obs_dim, action_dim)
    agent = agent_class(method)(config, env, seed=0)
    replay = make_replay(agent, env, 0, torch.device("cpu"))
    _fill(agent, replay, env)
    obs, first = np.zeros((1, obs_dim), np.float32), np.array([True])
    with FlopCounterMode(display=False) as acting:
        agent.act(obs, first=first, explore=True)
    with FlopCounterMode(display=False) as updating:
        agent.update(replay)
    return {"plan": acting.get_total_flops() / 1e9, "update": updating.get_total_flops() / 1e9}


@cache
def parameters_of(method: str, config: Any, obs_dim: int, action_dim: int) -> int:
    """Return the number of learned parameters of an agent.

    Args:
        method: name of the method.
        config: hyperparameters.
        obs_dim: observation dimension.
        action_dim: action dimension.
    """
    return agent_class(method)(config, _env(obs_dim, action_dim), seed=0).num_parameters()


def _env(obs_dim: int, action_dim: int) -> EnvSpec:
    return EnvSpec(
        obs_shape=(obs_dim,),
        action_dim=action_dim,
        episode_lengths=(DECISIONS,),
        action_repeats=(1,),
        action_dims=(action_dim,),
        task_names=("toy-pointmass",),
    )


def _fill(agent: Any, replay: Any, env: EnvSpec) -> None:
    """Add random episodes, enough for one batch of any method."""
    rng = np.random.default_rng(0)
    decisions = max(DECISIONS, agent.replay_length + 1)
    for place in range(agent.num_envs):
        obs = rng.normal(size=(decisions + 1, *env.obs_shape)).astype(np.float32)
        action = rng.uniform(-1, 1, (decisions, env.action_dim)).astype(np.float32)
        reward = rng.uniform(size=decisions).astype(np.float32)
        if agent.replay_across_episodes:
            for t in range(decisions):
                row = Transition(obs[t], action[t], float(reward[t]), obs[t + 1], False)
                replay.append(row, place)
        else:
            replay.add(Episode(obs=obs, action=action, reward=reward))
