"""A DreamerV3 agent with a few hundred parameters, and noise for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.behavior import Noise
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.rssm import State, draw
from tests.baselines.shapes import SMALL, Random

TINY = {
    "deter": 6,
    "hidden": 5,
    "stoch": 3,
    "classes": 4,
    "encoder_units": 7,
    "decoder_units": 7,
    "head_units": 5,
    "num_envs": 2,
    "batch_size": 3,
    "batch_length": 5,
    "imagination": 4,
    "seed_decisions": 20,
}


def make(**overrides: object) -> DreamerV3:
    """Return a tiny agent."""
    config = DreamerV3Config.make(model_size="small", **{**TINY, **overrides})
    return DreamerV3(config, SMALL, seed=0)


def perturb(agent: DreamerV3) -> None:
    """Randomize the heads that start at zero."""
    random = Random(7)
    for network in (agent.model, agent.behavior):
        for parameter in network.parameters():
            parameter.data += 0.1 * random.normal(*parameter.shape)


def model_noise(agent: DreamerV3, seed: int = 1) -> Tensor:
    """Return noise of the posterior states."""
    return Random(seed).uniform(5, 3, 3)


def imagination_noise(starts: int = 15, seed: int = 2) -> Noise:
    """Return noise of an imagined rollout."""
    random = Random(seed)
    return Noise(random.normal(4, starts, 2), random.uniform(4, starts, 3))


def starts(agent: DreamerV3, num: int = 15) -> State:
    """Return start states of imagined rollouts."""
    log_p = torch.log_softmax(Random(4).normal(num, 3, 4), -1)
    return State(Random(3).normal(num, 6), draw(log_p, Random(5).uniform(num, 3)).detach())


def slow_observe(agent: DreamerV3, batch: object, uniform: Tensor) -> tuple[State, Tensor]:
    """Compute `RSSM.observe` one time step after the other."""
    cell, embed = agent.model.rssm, agent.model.encode(batch.obs)
    state, states, logs = State(torch.zeros(3, 6), torch.zeros(3, 12)), [], []
    for t in range(len(batch.obs)):
        fresh, action = cell.begin(state, batch.action[t], batch.first[t])
        deter = cell.advance(fresh, action)
        logs.append(cell.posterior(deter, embed[t]))
        state = State(deter, draw(logs[-1], uniform[t]))
        states.append(state)
    return State(*(torch.stack(x) for x in zip(*states, strict=True))), torch.stack(logs)


def two_hot(x: float, num: int = 255) -> Tensor:
    """Return the two-hot encoding over bins from −20 to 20 in symlog space, computed anew."""
    place = (math.copysign(math.log1p(abs(x)), x) + 20) / 40 * (num - 1)
    below = math.floor(place)
    encoded = torch.zeros(num)
    encoded[below] = 1 - (place - below)
    encoded[min(below + 1, num - 1)] += place - below
    return encoded
