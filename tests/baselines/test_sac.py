"""Test SAC against closed forms and torch's distributions, and its update schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions as dist

from baselines.sac import SAC, Networks, actor_loss, critic_loss
from baselines.sac_config import SACConfig
from tdmpc2.common.interfaces import Counters, EnvSpec
from tdmpc2.common.system.errors import UserError
from tests.baselines.shapes import DOG, SMALL, WALKER, Random, random_batch


def make(**overrides: object) -> SAC:
    return SAC(SACConfig.make(**{"hidden_dim": 16, "batch_size": 9, **overrides}), SMALL, seed=0)


def perturb(nets: Networks) -> None:
    """Randomize the heads, which start at zero."""
    random = Random(3)
    for parameter in nets.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.3 * random.normal(*parameter.shape)


# --- the policy --------------------------------------------------------------------------


def test_log_probability_is_that_of_a_squashed_gaussian() -> None:
    agent = make()
    perturb(agent.nets)
    obs, noise = Random(1).normal(64, 5), Random(2).normal(64, 2)
    sample = agent.nets.act(obs, noise)
    mean, raw = agent.nets.actor(obs).chunk(2, dim=-1)
    std = (-5 + 0.5 * 7 * (torch.tanh(raw) + 1)).exp()
    squashed = dist.TransformedDistribution(
        dist.Normal(mean.double(), std.double()), dist.TanhTransform(cache_size=1)
    )
    u = mean.double() + std.double() * noise.double()
    action = squashed.transforms[0](u)
    torch.testing.assert_close(sample.action.double(), action, rtol=0, atol=1e-6)
    expected = squashed.log_prob(action).sum(-1)
    torch.testing.assert_close(sample.log_prob.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sample.mean, torch.tanh(mean))


def test_log_probability_stays_finite_where_tanh_saturates() -> None:
    agent = make()
    agent.nets.actor.layers[-1].bias.data[:2] = 50.0
    sample = agent.nets.act(torch.zeros(1, 5), torch.zeros(1, 2))
    assert torch.equal(sample.action, torch.ones(1, 2))
    # ln(1 − tanh²(50)) = 2·(ln 2 − 50) to float32; log σ lies in the middle, at −1.5.
    expected = 2 * (1.5 - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 50))
    assert sample.log_prob.item() == pytest.approx(expected, rel=1e-6)


def test_evaluation_takes_the_mean_and_training_samples() -> None:
    agent = make()
    obs, first = np.ones((1, 5), np.float32), np.array([True])
    mean = agent.act(obs, first=first, explore=False)
    assert (agent.act(obs, first=first, explore=False) == mean).all()
    assert (agent.act(obs, first=first, explore=True) != mean).any()


# --- losses ------------------------------------------------------------------------------


def test_critic_loss_by_hand() -> None:
    agent = make()
    perturb(agent.nets)
    batch, noise = random_batch(SMALL, 1, 9), Random(5).normal(9, 2)
    total = 0.0
    for i in range(9):
        obs, after = batch.obs[0, i], batch.obs[1, i]
        following = agent.nets.act(after, noise[i])
        joint = torch.cat([after, following.action])
        least = min(float(q(joint).detach()) for q in agent.nets.target_critics)
        soft = least - 0.1 * float(following.log_prob.detach())
        alive = 1 - float(batch.terminated[0, i])
        y = float(batch.reward[0, i]) + 0.9 * alive * soft
        now = torch.cat([obs, batch.action[0, i]])
        total += sum((float(q(now).detach()) - y) ** 2 for q in agent.nets.critics)
    loss = critic_loss(agent.nets, batch, 0.9, noise).loss
    assert loss.item() == pytest.approx(total / 9, rel=1e-5)


def test_actor_loss_by_hand_and_whom_it_reaches() -> None:
    agent = make()
    perturb(agent.nets)
    obs, noise = Random(1).normal(9, 5), Random(2).normal(9, 2)
    outcome = actor_loss(agent.nets, obs, -2.0, noise)
    sample = agent.nets.act(obs, noise)
    q = agent.nets.q(obs, sample.action).amin(0)
    expected = (0.1 * sample.log_prob - q).mean()
    assert outcome.metrics["actor_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    outcome.loss.backward()
    assert all(p.grad is not None for p in agent.nets.actor.parameters())
    assert all(p.grad is None for p in agent.nets.critics.parameters())
    # d/dα [α·(−ln π − H̄)] through ln α.
    slope = 0.1 * (-sample.log_prob.mean().item() + 2.0)
    assert agent.nets.log_temperature.grad.item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(("target", "direction"), [(100.0, 1), (-100.0, -1)])
def test_the_temperature_rises_where_entropy_is_wanting(target: float, direction: int) -> None:
    agent = make(target_entropy=target, lr=1e-2)
    before = agent.nets.log_temperature.item()
    agent.update_on(random_batch(SMALL, 1, 9), torch.zeros(9, 2), torch.zeros(9, 2))
    # The first step of Adam is the learning rate in the gradient's direction.
    assert agent.nets.log_temperature.item() - before == pytest.approx(direction * 1e-2, rel=1e-4)


def test_target_networks_move_every_other_update() -> None:
    agent = make()
    batch, zeros = random_batch(SMALL, 1, 9), torch.zeros(9, 2)
    target, online = agent.nets.target_critics, agent.nets.critics
    start = [p.clone() for p in target.parameters()]
    agent.update_on(batch, zeros, zeros)
    assert all(torch.equal(a, b) for a, b in zip(start, target.parameters(), strict=True))
    agent.update_on(batch, zeros, zeros)
    for a, b, p in zip(start, target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(b, a + 0.005 * (p - a))


def test_every_update_has_the_metrics_of_the_actor() -> None:
    agent, batch, random = make(actor_every=3), random_batch(SMALL, 1, 9), Random(4)
    names = ("actor_loss", "entropy", "alpha", "pi_grad_norm")
    start = [p.clone() for p in agent.actor_params]
    found = []
    for update in range(1, 7):
        metrics = agent.update_on(batch, random.normal(9, 2), random.normal(9, 2))
        found.append([float(metrics[name]) for name in names])
        same = [torch.equal(a, b) for a, b in zip(start, agent.actor_params, strict=True)]
        assert all(same) is (update < 3)
    assert found[0] == found[1] != found[2]
    assert found[2] == found[3] == found[4] != found[5]


def test_a_critic_that_fits_has_no_gradient() -> None:
    """With γ = 0 the target is the reward alone."""
    agent = make(discount=0.0)
    batch = random_batch(SMALL, 1, 9)
    q = agent.nets.q(batch.obs[0], batch.action[0]).detach()
    batch = batch._replace(reward=q[:1])
    loss = critic_loss(agent.nets, batch, 0.0, torch.zeros(9, 2)).loss
    assert loss.item() == pytest.approx((q[1] - q[0]).square().mean().item(), rel=1e-5)


# --- schedule, settings ------------------------------------------------------------------


def test_one_update_per_decision_after_seeding() -> None:
    agent = make(seed_decisions=100)
    assert agent.seed_decisions == 100
    due = [agent.updates_due("decision", Counters(n, 0, n)) for n in (1, 100, 101, 500)]
    assert due == [0, 0, 1, 1]
    assert agent.updates_due("episode_end", Counters(500, 0, 50)) == 0


@pytest.mark.parametrize(("env", "count"), [(WALKER, 3_252_238), (DOG, 3_994_702)])
def test_parameter_counts(env: EnvSpec, count: int) -> None:
    """There are 3,252,238 parameters for walker and about 4.0M for dog."""
    assert SAC(SACConfig.make(), env, seed=0).num_parameters() == count


def test_settings_of_tasks() -> None:
    assert SACConfig.make().learning_rate("dog-run") == 1e-4
    prior_art = SACConfig.make(task_settings="prior_art")
    assert prior_art.learning_rate("dog-run") == 3e-4
    assert prior_art.learning_rate("walker-run") == 1e-4
    assert SACConfig.make(task_settings="prior_art", lr=5e-4).learning_rate("dog-run") == 5e-4
    assert make(discount_from="episode_length").discount == 0.95
    assert make().discount == 0.99


@pytest.mark.parametrize(
    "bad",
    [
        {"tau": 2.0},
        {"batch_size": 0},
        {"nonsense": 1},
        {"lr_": 1},
        {"discount": 0.97, "discount_from": "episode_length"},
    ],
)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(UserError):
        SACConfig.make(**bad)


def test_images_are_refused() -> None:
    pixels = EnvSpec((9, 64, 64), 2, (50,), (2,), (2,), ("task",))
    with pytest.raises(UserError, match="obs=state"):
        SAC(SACConfig.make(), pixels, seed=0)
