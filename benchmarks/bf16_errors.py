"""Errors of values and gradients in bfloat16 against float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import Bench, prepared
from torch import Tensor

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.replay.types import Batch, Episode
from tdmpc2.noise import UpdateNoise
from tdmpc2.planner import estimate_value
from tdmpc2.runners.setup import make_replay

EPISODES, STATES = 6, 20


class Question(NamedTuple):
    """What the values of action sequences depend on.

    Attributes:
        obs: `(B, obs_dim)`.
        actions: `(H, B, N, A)`.
        noise: `(B, N, A)`, noise of the terminal action.
        heads: indices of the Q-functions; None for all.
    """

    obs: Tensor
    actions: Tensor
    noise: Tensor
    heads: Tensor | None


def measure(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return errors of bfloat16, and how much values change with other noise in float32.

    Values are those of `num_samples` action sequences, as in the first iteration of a plan, in 20
    states of random episodes, after the given number of updates on these.

    Args:
        case: as for `measuring.measure`, and `updates`.

    Returns:
        By kind, of which `bf16` is the precision as it is used here and `autocast` is bfloat16
        without native kernels: standard deviation and bias of the values, share of the best
        `num_elites`, relative errors of the gradients.
    """
    with prepared(case) as bench:
        return _measure(bench)


def _measure(bench: Bench) -> dict[str, dict[str, float]]:
    case, generator = bench.case, torch.Generator().manual_seed(0)
    agent = TDMPC2(bench.config, bench.spec, seed=0)  # the bench's has random Q-functions
    if bench.compiled:
        acceleration.install(agent)
    replay = make_replay(agent, bench.spec, 0, bench.device)
    episodes = [_random_episode(bench.env, bench.spec, seed) for seed in range(EPISODES)]
    for episode in episodes:
        replay.add(episode)
    for _ in range(case["updates"]):
        agent.update(replay)
    plain = _agent(case, bench.spec, agent, "fp32")
    kernels, autocast = (_agent(case, bench.spec, agent, "bf16") for _ in range(2))
    if bench.compiled:
        acceleration.install(kernels)

    batch = replay.sample(agent.config.batch_size, agent.replay_length)._replace(start=None)
    noise = agent.train_noise.update(agent.config.batch_size)
    rows = np.linspace(0, len(episodes[0].action) - 1, STATES).astype(int)
    obs = torch.stack([torch.as_tensor(episodes[i % EPISODES].obs[r]) for i, r in enumerate(rows)])
    question = _question(plain, obs, generator)
    other = _question(plain, obs, generator)._replace(actions=question.actions)
    values, gradients = _values(plain, question), _gradients(plain, batch, noise)
    found = {}
    for kind, changed in (("bf16", kernels), ("autocast", autocast)):
        compiled = bench.compiled and kind == "bf16" and fused_bf16.choice().used
        found[kind] = _compared(values, _values(changed, question, compiled), agent.config) | {
            f"{name}_gradient": _relative(ours, reference)
            for (name, ours), reference in zip(
                _gradients(changed, batch, noise).items(), gradients.values(), strict=True
            )
        }
    found["float32, other noise"] = _compared(values, _values(plain, other), agent.config)
    return found


def _agent(case: dict[str, Any], spec: EnvSpec, trained: TDMPC2, precision: str) -> TDMPC2:
    """Return an agent with the weights of another one."""
    settings = {**case["settings"], "precision": precision}
    config = type(trained.config).make(**settings)
    agent = TDMPC2(config, spec, seed=0)
    agent.load_state_dict(trained.state_dict())
    return agent


def _random_episode(env: Any, spec: EnvSpec, seed: int) -> Episode:
    """Return an episode of random actions in the environment."""
    rng = np.random.default_rng(seed)
    observations, rewards = [env.reset(seed=seed)[0]], []
    actions = rng.uniform(-1, 1, (spec.episode_lengths[0], spec.action_dim)).astype(np.float32)
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs)
        rewards.append(reward)
        if terminated or truncated:
            break
    return Episode(np.stack(observations), actions[: len(rewards)], np.array(rewards, np.float32))


def _question(agent: TDMPC2, obs: Tensor, generator: torch.Generator) -> Question:
    """Return sequences as the first iteration of a plan samples them: σ = `max_std`, μ = 0."""
    c = agent.config
    shape = (len(obs), c.num_samples, agent.env.action_dim)
    actions = c.max_std * torch.randn(c.horizon, *shape, generator=generator)
    heads = torch.randperm(c.num_q, generator=generator)[:2]
    return Question(obs, actions.clamp(-1, 1), torch.randn(*shape, generator=generator), heads)


@torch.no_grad()
def _values(agent: TDMPC2, question: Question, compiled: bool = False) -> Tensor:
    """Return the values `(B, N)`; compiled functions use native kernels."""
    function = torch.compile(estimate_value, dynamic=False) if compiled else estimate_value
    context = agent.model.context(None).over_samples()
    latent = agent.model.encode(question.obs)[:, None]
    discount = agent.discount(None, len(latent))[:, None]
    return function(
        agent.model,
        latent,
        question.actions,
        context,
        discount,
        question.noise,
        question.heads,
    )


def _gradients(agent: TDMPC2, batch: Batch, noise: UpdateNoise) -> dict[str, Sequence[Tensor]]:
    """Return the gradients of the model loss and the policy loss."""
    outcome, model = agent.differentiate(agent.model_loss, agent.model_params, batch, noise)
    latents = outcome.latents
    _, policy = agent.differentiate(agent.policy_loss, agent.policy_params, latents, None, noise)
    return {"model": model, "policy": policy}


def _compared(reference: Tensor, values: Tensor, config: Any) -> dict[str, float]:
    """Return the errors of values `(B, N)`, and the share of the best that both have."""
    error = values - reference
    best = [x.topk(config.num_elites).indices for x in (reference, values)]
    shared = (best[0][:, :, None] == best[1][:, None]).any(-1).float().mean()
    return {
        "value_std": float(error.std(1).mean()),
        "value_bias": float(error.mean().abs()),
        "overlap": float(shared),
    }


def _relative(ours: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Return the norm of the difference over the norm of the gradient."""
    flat, expected = (torch.cat([x.flatten().double() for x in xs]) for xs in (ours, reference))
    return float((flat - expected).norm() / expected.norm())
