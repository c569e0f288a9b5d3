"""Test that every value of every flag learns: finite losses, all networks change, targets by τ."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.config import TDMPC2Config
from tests.helpers import THREE_TASKS, env_spec, filled_replay, tiny_config

PIXELS = env_spec((9, 64, 64))
EPISODIC = env_spec(episodic=True)
LARGE_ACTION_SPACE = env_spec(action_dims=(20,))

VARIANTS: dict[str, tuple[EnvSpec, dict[str, Any]]] = {
    "default": (env_spec(), {}),
    "latent_norm=layernorm": (env_spec(), {"latent_norm": "layernorm"}),
    "latent_norm=none": (env_spec(), {"latent_norm": "none"}),
    "hidden_norm=none": (env_spec(), {"hidden_norm": "none"}),
    "no norms": (env_spec(), {"hidden_norm": "none", "latent_norm": "none"}),
    "simnorm_tau=0.5": (env_spec(), {"simnorm_tau": 0.5}),
    "simnorm_dim=4": (env_spec(), {"simnorm_dim": 4}),
    "regression=symlog_mse": (env_spec(), {"regression": "symlog_mse"}),
    "regression=mse": (env_spec(), {"regression": "mse"}),
    "num_q=1": (env_spec(), {"num_q": 1}),
    "num_q=2": (env_spec(), {"num_q": 2}),
    "num_q=5": (env_spec(), {"num_q": 5}),
    "num_q=10": (env_spec(), {"num_q": 10}),
    "policy_prior=gaussian_noise": (env_spec(), {"policy_prior": "gaussian_noise"}),
    "planning=false": (env_spec(), {"planning": False}),
    "seed_with=agent": (env_spec(), {"seed_with": "agent"}),
    "entropy_form=official_2024": (env_spec(), {"entropy_form": "official_2024"}),
    "entropy_form=exact": (env_spec(), {"entropy_form": "exact"}),
    "entropy_tuning=target": (
        env_spec(),
        {"entropy_tuning": "target", "entropy_form": "exact"},
    ),
    "q_init=official_2024": (env_spec(), {"q_init": "official_2024"}),
    "dropout=0": (env_spec(), {"dropout": 0.0}),
    "dropout_in=everywhere": (env_spec(), {"dropout": 0.2, "dropout_in": "everywhere"}),
    "dropout_in=model_and_policy_loss": (
        env_spec(),
        {"dropout": 0.2, "dropout_in": "model_and_policy_loss"},
    ),
    "num_q=1, dropout_in=everywhere": (
        env_spec(),
        {"num_q": 1, "dropout": 0.2, "dropout_in": "everywhere"},
    ),
    "precision=bf16": (env_spec(), {"precision": "bf16"}),
    "precision=tf32": (env_spec(), {"precision": "tf32"}),  # as fp32 on a CPU
    "prioritized_replay=true": (env_spec(), {"prioritized_replay": True}),
    "momentum=0.1": (env_spec(), {"momentum": 0.1}),
    "horizon=1": (env_spec(), {"horizon": 1}),
    "horizon=5": (env_spec(), {"horizon": 5}),
    "num_pi_samples=0": (env_spec(), {"num_pi_samples": 0}),
    "batch_size=1": (env_spec(), {"batch_size": 1}),
    "20 actions": (LARGE_ACTION_SPACE, {}),
    "episodic": (EPISODIC, {}),
    "episodic, prioritized_replay=true": (EPISODIC, {"prioritized_replay": True}),
    "multi-task": (THREE_TASKS, {"task_dim": 4}),
    "multi-task, normalize_task_embedding=false": (
        THREE_TASKS,
        {"task_dim": 4, "normalize_task_embedding": False},
    ),
    "multi-task, entropy_tuning=target": (
        THREE_TASKS,
        {"task_dim": 4, "entropy_tuning": "target", "entropy_form": "exact"},
    ),
    "multi-task, policy_prior=gaussian_noise": (
        THREE_TASKS,
        {"task_dim": 4, "policy_prior": "gaussian_noise"},
    ),
    "pixels": (PIXELS, {"num_channels": 2, "latent_dim": 32}),
    "pixels, latent_norm=layernorm": (
        PIXELS,
        {"num_channels": 2, "latent_dim": 32, "latent_norm": "layernorm"},
    ),
}


def networks(agent: TDMPC2) -> dict[str, list[torch.nn.Parameter]]:
    """Return learned parameters by network."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in agent.model.named_parameters():
        if parameter.requires_grad:
            found.setdefault(name.partition(".")[0], []).append(parameter)
    return found


def test_every_value_of_every_flag_has_a_variant() -> None:
    """All values of all flags are listed above (default values in `default`)."""
    hints = typing.get_type_hints(TDMPC2Config)
    for field in dataclasses.fields(TDMPC2Config):
        values = typing.get_args(hints[field.name])
        if field.name == "model_size" or not all(isinstance(v, str) for v in values):
            continue
        tried = {
            getattr(tiny_config(**overrides), field.name) for _, overrides in VARIANTS.values()
        }
        assert set(values) <= tried, field.name


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_learns(name: str) -> None:
    env, overrides = VARIANTS[name]
    config = tiny_config(**overrides)
    agent, replay = TDMPC2(config, env, seed=1), filled_replay(config, env)
    expected = {"encoder", "dynamics", "reward_head", "policy", "q_functions"}
    expected |= {"termination_head"} if env.episodic else set()
    expected |= {"task_embedding"} if config.task_dim else set()
    expected |= {"policy_log_alpha"} if config.entropy_tuning == "target" else set()
    assert set(networks(agent)) == expected

    for update in range(3):
        before = {n: [p.detach().clone() for p in ps] for n, ps in networks(agent).items()}
        target = [p.clone() for p in agent.model.target_q_functions.parameters()]
        metrics = agent.update(replay)
        assert all(value.isfinite().all() for value in metrics.values())
        for network, old in before.items():
            moved = [
                not torch.equal(a, b) for a, b in zip(networks(agent)[network], old, strict=True)
            ]
            # Reward and value heads start at zero: no gradient passes them in the first step.
            assert all(moved) if update == 2 else any(moved), network
        online = agent.model.q_functions.parameters()
        for new, old, goal in zip(
            agent.model.target_q_functions.parameters(), target, online, strict=True
        ):
            by_tau = old + 0.01 * (goal.detach() - old)
            torch.testing.assert_close(new, by_tau, rtol=1e-6, atol=1e-8)
    assert all(p.isfinite().all() for p in agent.model.parameters())

    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2, *env.obs_shape)).astype(np.float32)
    if env.pixels:
        obs = (obs * 60 + 128).clip(0, 255).astype(np.uint8)
    task = np.array([0, 2]) if config.task_dim else None
    for explore in (True, False):
        for first in (True, False):
            action = agent.act(obs, first=np.full(2, first), explore=explore, task=task)
            assert action.shape == (2, env.action_dim)
            assert np.isfinite(action).all()
            assert abs(action).max() <= 1


@pytest.mark.parametrize(
    "overrides", [{}, {"prioritized_replay": True}, {"regression": "mse"}], ids=str
)
def test_nan_shows_in_the_metrics_and_stops_nothing(overrides: dict[str, Any]) -> None:
    """NaN raises no error but shows in the metrics, so that the run ends as diverged."""
    config = tiny_config(**overrides)
    agent, replay = TDMPC2(config, env_spec(), seed=1), filled_replay(config, env_spec())
    with torch.no_grad():
        agent.model.encoder[0].linear.weight[0, 0] = torch.nan
    for _ in range(2):
        metrics = agent.update(replay)
        assert metrics["consistency_loss"].isnan()
        assert metrics["value_loss"].isnan()
    obs, first = np.zeros((1, 5), dtype=np.float32), np.array([True])
    assert agent.act(obs, first=first, explore=True).shape == (1, 2)
