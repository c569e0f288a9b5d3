"""Test losses, acting and schedule of DreamerV3 against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dreamerv3 import behavior as behaviors
from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.behavior import lambda_returns, learn, moved_range
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.rssm import State
from baselines.dreamerv3.world_model import divergence, model_loss
from tdmpc2.common.interfaces import Counters
from tdmpc2.common.numerics.optim import differentiate
from tdmpc2.common.system.errors import UserError
from tests.baselines.dreamer import (
    imagination_noise,
    make,
    model_noise,
    perturb,
    slow_observe,
    starts,
    two_hot,
)
from tests.baselines.shapes import SMALL, Random, random_sequences

# --- the world model's loss ------------------------------------------------------------------


def test_model_loss_by_hand() -> None:
    agent = make()
    perturb(agent)
    c, m = agent.config, agent.model
    batch, uniform = random_sequences(SMALL, 5, 3), model_noise(agent)
    with torch.no_grad():
        state, posterior = slow_observe(agent, batch, uniform)
        prior = m.rssm.prior(state.deter)
        total = 0.0
        for t in range(5):
            for i in range(3):
                here = State(state.deter[t, i], state.stoch[t, i]).features
                obs = batch.obs[t, i]
                symlog = torch.sign(obs) * torch.log1p(obs.abs())
                total += float((m.decoder(here)[0] - symlog).square().sum())
                log_bins = torch.log_softmax(m.reward_head(here)[0], -1)
                total -= float((two_hot(float(batch.reward[t, i])) * log_bins).sum())
                p = torch.sigmoid(m.continue_head(here)[0][0])
                ends = float(batch.terminated[t, i])
                total -= math.log(float(1 - p) if ends else float(p))
                kl = divergence(posterior[t, i], prior[t, i]).item()
                total += (0.5 + 0.1) * max(kl, 1.0)
    loss = model_loss(c, m, batch, uniform).loss
    assert loss.item() == pytest.approx(total / 15, rel=1e-4)


@pytest.mark.parametrize("x", [0.0, 1.0, -3.7, 1234.5])
def test_two_hot_in_symlog_space(x: float) -> None:
    regression = make().model.regression
    assert (regression.vmin, regression.vmax, regression.out_dim) == (-20, 20, 255)
    torch.testing.assert_close(regression.two_hot(torch.tensor(x)), two_hot(x), rtol=0, atol=1e-4)
    logits = torch.log(two_hot(x) + 1e-12)
    assert regression.decode(logits).item() == pytest.approx(x, rel=1e-3, abs=1e-4)


# --- behavior -------------------------------------------------------------------------------


def test_lambda_returns_by_hand() -> None:
    reward = torch.tensor([[1.0], [2.0], [3.0]])
    value = torch.tensor([[10.0], [20.0], [30.0]])
    discount = torch.tensor([[0.9], [0.5], [0.8]])
    third = 3 + 0.8 * 30
    second = 2 + 0.5 * (0.05 * 20 + 0.95 * third)
    first = 1 + 0.9 * (0.05 * 10 + 0.95 * second)
    got = lambda_returns(reward, value, discount, 0.95)
    torch.testing.assert_close(got[:, 0], torch.tensor([first, second, third]))
    assert lambda_returns(reward, value, torch.zeros(3, 1), 0.95)[:, 0].tolist() == [1, 2, 3]


def test_the_range_of_returns() -> None:
    returns = torch.arange(101.0).view(1, 101)
    moved = moved_range(torch.tensor([1.0, 2.0]), returns, 0.99)
    torch.testing.assert_close(moved, torch.tensor([0.99 + 0.05, 1.98 + 0.95]))


def test_policy_by_hand() -> None:
    agent = make()
    for output, bias in zip(agent.behavior.actor.outputs, (0.7, -2.0), strict=True):
        output.weight.data.zero_()
        output.bias.data.fill_(bias)
    mean, std = agent.behavior.policy(starts(agent).features)
    torch.testing.assert_close(mean, torch.full((15, 2), math.tanh(0.7)))
    torch.testing.assert_close(std, torch.full((15, 2), 0.1 + 0.9 * 0.5))
    noise = Random(1).normal(15, 2)
    torch.testing.assert_close(
        agent.behavior.act(starts(agent).features, noise), mean + std * noise
    )


def losses_of(agent: DreamerV3, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Compute actor and critic loss step by step."""
    c, m, b = agent.config, agent.model, agent.behavior
    noise, start = imagination_noise(), starts(agent)
    state, features = start, [start.features]
    for t in range(4):
        action = b.act(features[-1].detach(), noise.action[t])
        state = m.rssm.imagine(state, action, noise.state[t])
        features.append(state.features)
    value = [b.regression.decode(b.critic(f)[0]) for f in features]
    going = [alive, *((m.continue_head(f)[0][..., 0] > 0).float() for f in features[1:])]
    target: list[Tensor] = [value[-1]]
    for t in range(3, -1, -1):
        after = 0.05 * value[t + 1] + 0.95 * target[0]
        target.insert(0, m.reward(features[t + 1]) + c.discount * going[t + 1] * after)
    returns = torch.stack(target[:-1])
    low, high = np.percentile(returns.detach(), [5, 95])
    spread = max(1.0, 0.99 * 3.0 + 0.01 * float(high - low))
    actor, critic, weight = torch.zeros(()), torch.zeros(()), torch.ones(15)
    for t in range(4):
        here = features[t].detach()
        weight = weight * c.discount * going[t]
        std = b.policy(here)[1]
        entropy = torch.distributions.Normal(0.0, std).entropy().sum(-1)
        advantage = (returns[t] - value[t]) / spread
        actor = actor - (weight * (advantage + 3e-4 * entropy)).mean() / 4
        log_bins = torch.log_softmax(b.critic(here)[0], -1)
        slow = b.regression.decode(b.slow_critic(here)[0])
        for goal in (returns[t].detach(), slow):
            hot = torch.stack([two_hot(v) for v in goal.tolist()])
            critic = critic - (weight * (hot * log_bins).sum(-1)).mean() / 4
    return actor, critic


def test_losses_of_actor_and_critic_by_hand() -> None:
    agent = make()
    perturb(agent)
    agent.behavior.slow_critic.outputs[0].bias.data += 0.5
    alive = (torch.arange(15) % 4 > 0).float()
    actor, critic = losses_of(agent, alive)
    b = agent.behavior
    expected = [
        torch.autograd.grad(critic, list(b.critic.parameters()), retain_graph=True),
        torch.autograd.grad(actor, list(b.actor.parameters())),
    ]
    past = torch.tensor([-1.0, 2.0])
    args = (agent.config, agent.model, b, starts(agent), alive, past, imagination_noise())
    outcome = learn(*args)
    assert outcome.metrics["actor_loss"].item() == pytest.approx(actor.item(), rel=1e-4)
    assert outcome.metrics["critic_loss"].item() == pytest.approx(critic.item(), rel=1e-4)
    for got, wanted in zip((outcome.critic, outcome.actor), expected, strict=True):
        for a, e in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-3, atol=1e-6)


def test_the_slow_critic_holds_the_critic_back() -> None:
    agent = make(slow_coef=0.0)
    perturb(agent)
    alive, past = torch.ones(15), torch.zeros(2)
    free = learn(
        agent.config, agent.model, agent.behavior, starts(agent), alive, past, imagination_noise()
    )
    held = make()
    perturb(held)
    both = learn(
        held.config, held.model, held.behavior, starts(held), alive, past, imagination_noise()
    )
    assert both.metrics["critic_loss"] > free.metrics["critic_loss"]
    assert torch.equal(both.actor[0], free.actor[0])
    # The slow critic moves by 2 % at each update.
    before = [p.clone() for p in held.behavior.slow_critic.parameters()]
    held.update_on(random_sequences(SMALL, 5, 3), model_noise(held), imagination_noise())
    online, slow = held.behavior.critic.parameters(), held.behavior.slow_critic.parameters()
    for old, new, goal in zip(before, slow, online, strict=True):
        torch.testing.assert_close(new, old + 0.02 * (goal - old))


def test_the_imagined_future_changes_nothing_in_the_world_model() -> None:
    agent = make()
    perturb(agent)
    before = {name: p.clone() for name, p in agent.model.named_parameters()}
    agent.optimizers["model"].param_groups[0]["lr"] = 0.0
    agent.update_on(random_sequences(SMALL, 5, 3), model_noise(agent), imagination_noise())
    assert all(torch.equal(p, before[name]) for name, p in agent.model.named_parameters())


def test_percentiles_are_those_the_returns_are_scaled_with() -> None:
    assert behaviors.PERCENTILES == (0.05, 0.95)


# --- acting and schedule ---------------------------------------------------------------------


def test_states_go_on_until_an_episode_begins() -> None:
    agent = make()
    perturb(agent)
    obs = Random(1).normal(2, 5).numpy()
    agent.seed_evaluation(5)
    start = agent.act(obs, first=np.array([True, True]), explore=False)
    previous = agent.act_states[False]
    agent.act(obs, first=np.array([True, True]), explore=True)
    assert agent.act_states[False] is previous  # training has separate recurrent states
    agent.act(obs, first=np.array([False, True]), explore=False)
    state, action = agent.act_states[False]
    assert (state.deter[0] != previous[0].deter[0]).any()
    torch.testing.assert_close(state.deter[1], previous[0].deter[1])
    assert torch.equal(action.abs().clamp(max=1), action.abs())
    agent.act_states[False] = None
    agent.seed_evaluation(5)
    assert (agent.act(obs, first=np.array([True, True]), explore=False) == start).all()


def test_the_small_model_takes_larger_steps_unless_told_otherwise() -> None:
    rates = [
        (config.model_lr, config.lr)
        for config in (
            DreamerV3Config.make(),
            DreamerV3Config.make(model_size="small"),
            DreamerV3Config.make(model_size="small", lr=2e-5),
        )
    ]
    assert rates == [(1e-4, 3e-5), (3e-4, 1e-4), (3e-4, 2e-5)]


def test_half_an_update_per_decision() -> None:
    """512 observations are replayed per decision, in batches of 16 x 64."""
    agent = DreamerV3(DreamerV3Config.make(model_size="small"), SMALL, seed=0)
    assert (agent.num_envs, agent.replay_length, agent.seed_decisions) == (4, 64, 1024)
    done, decisions = 0, 0
    for _ in range(1000):
        decisions += 4
        due = agent.updates_due("decision", Counters(decisions, done, 1))
        assert due == (2 if decisions > 1024 else 0)
        done += due
    assert agent.updates_due("episode_end", Counters(10**6, 0, 1)) == 0


def test_the_loss_falls_on_a_batch_that_stays() -> None:
    agent = make(model_lr=3e-3)
    batch, uniform = random_sequences(SMALL, 5, 3), model_noise(agent)
    args = (agent.config, agent.model, batch, uniform)
    first = model_loss(*args).loss.item()
    for _ in range(60):
        outcome, grads = differentiate(model_loss, agent.params["model"], *args)
        agent._descend("model", grads, 1000.0)
    assert outcome.loss.item() < 0.6 * first


@pytest.mark.parametrize(
    "bad",
    [{"model_size": "7"}, {"seed_decisions": 100}, {"actor_min_std": 0}, {"classes": 0}],
)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(UserError):
        DreamerV3Config.make(**bad)
