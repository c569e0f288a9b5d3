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
        `{"plan": …, "update": …}`; `plan` is missing if a method declares none.
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
    decisions, rng = max(DECISIONS, agent.replay_length + 1), np.random.default_rng(0)
    for place in range(agent.num_envs):
        episode = random_episode(env, decisions, rng)
        store(replay, episode, place, across_episodes=agent.replay_across_episodes)
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


def random_episode(env: EnvSpec, decisions: int, rng: np.random.Generator) -> Episode:
    """Return an episode of normal observations, uniform actions and uniform rewards.

    Args:
        env: shapes of the environment.
        decisions: length of the episode.
        rng: source of the numbers.
    """
    return Episode(
        obs=rng.normal(size=(decisions + 1, *env.obs_shape)).astype(np.float32),
        action=rng.uniform(-1, 1, (decisions, env.action_dim)).astype(np.float32),
        reward=rng.uniform(size=decisions).astype(np.float32),
    )


def store(replay: Any, episode: Episode, place: int, *, across_episodes: bool) -> None:
    """Store an episode as the training loop does.

    Args:
        replay: replay buffer of an agent.
        episode: episode without termination.
        place: index of the environment.
        across_episodes: `replay_across_episodes` of the agent.
    """
    if not across_episodes:
        replay.add(episode)
        return
    for t, (action, reward) in enumerate(zip(episode.action, episode.reward, strict=True)):
        transition = Transition(episode.obs[t], action, float(reward), episode.obs[t + 1], False)
        replay.append(transition, place)
