"""Quantities of an agent (shapes, losses, actions, updates …) in which two variants can differ."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tdmpc2.agent import TDMPC2
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import task_of
from tests.helpers import THREE_TASKS, filled_replay, random_batch, tiny_config

ROWS = 6
TASK = torch.arange(ROWS) % 3


def config_of(**overrides: Any) -> TDMPC2Config:
    """Build the config of a tiny three-task agent with the paper's number of Q-functions."""
    return tiny_config(**{"num_q": 5, "task_dim": 4, **overrides})


def _agent(config: TDMPC2Config) -> TDMPC2:
    """Build an agent with random weights that depend only on the name and shape of each tensor."""
    agent = TDMPC2(config, THREE_TASKS, seed=1)
    with torch.no_grad():
        for name, parameter in agent.model.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            spread = 0.05 if name == "task_embedding" else 0.3  # inside the unit ball
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return agent


def _checksum(tensors: Any) -> str:
    joined = hashlib.sha256()
    for tensor in tensors:
        joined.update(np.ascontiguousarray(torch.as_tensor(tensor).detach().numpy()).tobytes())
    return joined.hexdigest()[:12]


def _shapes(config: TDMPC2Config) -> Any:
    return {name: tuple(p.shape) for name, p in _agent(config).model.named_parameters()}


def _initial(config: TDMPC2Config) -> Any:
    return _checksum(TDMPC2(config, THREE_TASKS, seed=1).model.parameters())


def _model_loss(config: TDMPC2Config) -> Any:
    agent = _agent(config)
    batch = random_batch(config, THREE_TASKS)
    return agent.model_loss(batch, agent.train_noise.update(config.batch_size)).loss.item()


def _policy_loss(config: TDMPC2Config) -> Any:
    """Compute the policy loss with policy noise that does not depend on other random samples."""
    agent, generator = _agent(config), torch.Generator().manual_seed(3)
    latents = torch.rand(6, ROWS, config.latent_dim, generator=generator)[: config.horizon + 1]
    noise = agent.train_noise.update(ROWS)
    policy = torch.randn(6, ROWS, 3, generator=generator)[: config.horizon + 1]
    noise = noise._replace(policy=policy, policy_heads=torch.tensor([0, min(1, config.num_q - 1)]))
    return agent.policy_loss(latents, TASK, noise).loss.item()


def _act(explore: bool) -> Callable[[TDMPC2Config], Any]:
    def act(config: TDMPC2Config) -> Any:
        agent = _agent(config)
        obs = np.random.default_rng(4).normal(size=(3, 5)).astype(np.float32)
        how: dict[str, Any] = {"explore": explore, "task": np.arange(3)}
        agent.act(obs, first=np.ones(3, bool), **how)
        return _checksum([agent.act(obs, first=np.zeros(3, bool), **how)])

    return act


def _update(config: TDMPC2Config) -> Any:
    agent = _agent(config)
    agent.update(filled_replay(config, THREE_TASKS))
    return _checksum(agent.model.parameters())


def _batch(config: TDMPC2Config) -> Any:
    return config.batch_size, _agent(config).replay_length


def _priorities(config: TDMPC2Config) -> Any:
    return _agent(config).replay_priorities


def _least_std(config: TDMPC2Config) -> Any:
    return _agent(config).min_std()


def _embedding(config: TDMPC2Config) -> Any:
    """Return the norms of renormalized embeddings whose norms were above 1."""
    agent = _agent(config)
    with torch.no_grad():
        agent.model.task_embedding.fill_(2.0)
    agent.model.renormalize_task_embedding(torch.arange(3))
    return agent.model.task_embedding.norm(dim=1).tolist()


QUANTITIES: dict[str, Callable[[TDMPC2Config], Any]] = {
    "shapes": _shapes,
    "initial": _initial,
    "model loss": _model_loss,
    "policy loss": _policy_loss,
    "plan": _act(explore=False),
    "act while training": _act(explore=True),
    "update": _update,
    "batch": _batch,
    "priorities": _priorities,
    "least std": _least_std,
    "embedding": _embedding,
}


def quantities(spec: RunSpec) -> dict[str, Any]:
    """Measure all quantities of the tiny agent with a run's settings, and add the run's task."""
    config = config_of(**dict(spec.overrides))
    return {name: measure(config) for name, measure in QUANTITIES.items()} | {"task": task_of(spec)}
