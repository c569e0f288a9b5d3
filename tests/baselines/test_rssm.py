"""Test layers and recurrent model of DreamerV3 against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import Hidden, Output
from baselines.dreamerv3.rssm import State, bounded, draw, log_probs
from baselines.dreamerv3.world_model import balanced_divergence, divergence
from tdmpc2.common.interfaces import EnvSpec
from tests.baselines.dreamer import (
    make,
    model_noise,
    perturb,
    slow_observe,
    starts,
)
from tests.baselines.shapes import DOG, SMALL, WALKER, Random, random_sequences

# --- layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("env", "count"), [(WALKER, 18_708_003), (DOG, 19_164_970)])
def test_parameter_counts(env: EnvSpec, count: int) -> None:
    """There are 18,708,003 parameters for walker and about 19.2M for dog."""
    assert DreamerV3(DreamerV3Config.make(), env, seed=0).num_parameters() == count


def test_hidden_layers_by_hand() -> None:
    layer = Hidden(3, 4)
    layer.scale.data, layer.shift.data = torch.linspace(0.5, 2, 4), torch.linspace(-1, 1, 4)
    x = torch.tensor([0.3, -1.2, 2.0])
    h = [float(row @ x) for row in layer.weight.detach()]
    mean = sum(h) / 4
    std = math.sqrt(sum((v - mean) ** 2 for v in h) / 4 + 1e-3)
    expected = []
    for v, scale, shift in zip(h, layer.scale.tolist(), layer.shift.tolist(), strict=True):
        u = scale * (v - mean) / std + shift
        expected.append(u / (1 + math.exp(-u)))
    torch.testing.assert_close(layer(x), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_initial_weights_have_the_variance_of_the_mean_fan() -> None:
    hidden, output = Hidden(300, 500), Output(300, 500)
    for weight in (hidden.weight, output.weight):
        assert weight.var().item() == pytest.approx(1 / 400, rel=0.02)
    assert output.weight.abs().max() <= math.sqrt(3 / 400)
    assert hidden.weight.abs().max() > 1.5 * hidden.weight.std()
    assert not Output(3, 2, zero=True).weight.any()


def test_rewards_and_values_start_at_zero() -> None:
    agent, state = make(), starts(make())
    assert torch.allclose(agent.model.reward(state.features), torch.zeros(15), atol=1e-5)
    assert not agent.behavior.critic(state.features)[0].any()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            agent.behavior.critic.parameters(),
            agent.behavior.slow_critic.parameters(),
            strict=True,
        )
    )


# --- categorical states --------------------------------------------------------------------


def test_unimix() -> None:
    logits = torch.tensor([[0.0, 50.0, -50.0, 0.0]])
    probs = log_probs(logits, 0.01).exp()
    torch.testing.assert_close(probs, torch.tensor([[0.0025, 0.9925, 0.0025, 0.0025]]))
    assert torch.equal(log_probs(logits, 0.0).argmax(-1), torch.tensor([1]))
    far = log_probs(torch.tensor([[0.0, 200.0]]), 0.0)
    torch.testing.assert_close(far, torch.tensor([[-200.0, 0.0]]))  # not infinite


def test_draws_follow_the_probabilities() -> None:
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3])
    uniform = (torch.arange(1000) + 0.5) / 1000
    sample = draw(probs.log().expand(1000, 1, 4), uniform[:, None])
    torch.testing.assert_close(sample.mean(0), probs)
    assert torch.equal(sample.sum(-1), torch.ones(1000))


def test_draws_pass_gradients_straight_through() -> None:
    logits = Random(1).normal(5, 3, 4).requires_grad_()
    weight = Random(2).normal(5, 12)
    log_p = log_probs(logits, 0.01)
    (draw(log_p, Random(3).uniform(5, 3)) * weight).sum().backward()
    got, logits.grad = logits.grad.clone(), None
    (log_probs(logits, 0.01).exp().flatten(-2) * weight).sum().backward()
    torch.testing.assert_close(got, logits.grad)


def test_divergence_by_hand() -> None:
    p = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).transpose(0, 1)  # (1, S=2, C=2)
    q = torch.tensor([[[0.25, 0.75]], [[0.9, 0.1]]]).transpose(0, 1)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)


def test_kl_balance_trains_either_side_alone_and_stops_at_the_free_nats() -> None:
    posterior = log_probs(3 * Random(1).normal(1, 3, 4), 0.01).requires_grad_()
    prior = log_probs(3 * Random(2).normal(1, 3, 4), 0.01).requires_grad_()
    dynamics, representation, kl = balanced_divergence(posterior, prior, 1.0)
    assert kl.item() > 1
    assert torch.equal(dynamics, representation)
    grads = torch.autograd.grad(dynamics.sum(), [posterior, prior], allow_unused=True)
    assert grads[0] is None
    torch.testing.assert_close(grads[1], -posterior.exp())
    grads = torch.autograd.grad(representation.sum(), [posterior, prior], allow_unused=True)
    assert grads[1] is None
    torch.testing.assert_close(grads[0], posterior.exp() * (posterior - prior + 1))
    near = balanced_divergence(posterior, posterior.detach() + 1e-3, 1.0)
    assert near[0].item() == near[1].item() == 1.0
    assert not torch.autograd.grad(near[1].sum(), posterior)[0].any()


# --- the recurrent model -------------------------------------------------------------------


def test_one_step_of_the_recurrence_by_hand() -> None:
    agent = make()
    perturb(agent)
    cell, deter = agent.model.rssm, Random(1).normal(1, 6)
    stoch = starts(agent, 1).stoch
    action = torch.tensor([[0.5, -3.0]])  # the second action is bounded to −1
    x = cell.input(torch.cat([stoch, torch.tensor([[0.5, -1.0]])], -1))[0].tolist()
    inputs = [*deter[0].tolist(), *x]
    products = [
        sum(w * v for w, v in zip(row, inputs, strict=True)) for row in cell.gru.detach().tolist()
    ]
    mean = sum(products) / 18
    std = math.sqrt(sum((p - mean) ** 2 for p in products) / 18 + 1e-3)
    scale, shift = cell.gru_scale.tolist(), cell.gru_shift.tolist()
    normed = [s * (p - mean) / std + b for p, s, b in zip(products, scale, shift, strict=True)]

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    expected = []
    for i, old in enumerate(deter[0].tolist()):
        reset, candidate, update = normed[i], normed[6 + i], normed[12 + i]
        share = sigmoid(update - 1)
        expected.append(share * math.tanh(sigmoid(reset) * candidate) + (1 - share) * old)
    got = cell.advance(State(deter, stoch), action)
    torch.testing.assert_close(got, torch.tensor([expected]), rtol=1e-4, atol=1e-5)


def test_actions_are_bounded_with_the_gradient_of_the_scale_left_out() -> None:
    action = torch.tensor([0.5, -2.0, 4.0], requires_grad=True)
    bounded(action).sum().backward()
    assert bounded(action).tolist() == [0.5, -1.0, 1.0]
    assert action.grad.tolist() == [1.0, 0.5, 0.25]


def test_sequences_are_observed_as_step_by_step_gradients_included() -> None:
    agent = make()
    perturb(agent)
    batch, uniform = random_sequences(SMALL, 5, 3), model_noise(agent)
    cell = agent.model.rssm
    results = []
    for observe in (
        lambda: slow_observe(agent, batch, uniform),
        lambda: cell.observe(batch.action, agent.model.encode(batch.obs), batch.first, uniform),
    ):
        state, log_p = observe()
        loss = (state.deter * Random(8).normal(5, 3, 6)).sum() + state.stoch.square().sum()
        loss = loss + (log_p * Random(9).normal(5, 3, 3, 4)).sum()
        params = list(agent.model.encoder.parameters()) + list(cell.parameters())
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        results.append([*state, log_p, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1]) > 15
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_an_episode_that_begins_inside_a_sequence_knows_nothing_of_the_one_before() -> None:
    agent = make()
    perturb(agent)
    batch, uniform = random_sequences(SMALL, 5, 3), model_noise(agent)
    cell = agent.model.rssm

    def observe(obs: Tensor, action: Tensor) -> State:
        return cell.observe(action, agent.model.encode(obs), batch.first, uniform)[0]

    before = observe(batch.obs, batch.action)
    obs, action = batch.obs.clone(), batch.action.clone()
    obs[:2, 1] += 5.0  # the old episode of the second row
    action[:3, 1] = 0.9  # and the action that led to the first observation of the new one
    after = observe(obs, action)
    assert (after.deter[:2, 1] != before.deter[:2, 1]).any()
    assert torch.equal(after.deter[2:, 1], before.deter[2:, 1])
    assert torch.equal(after.stoch[2:, 1], before.stoch[2:, 1])
    # The new episode starts from the same initial state as the sequence.
    alone = cell.observe_one(
        State(torch.ones(1, 6), torch.ones(1, 12)),
        torch.ones(1, 2),
        agent.model.encode(batch.obs[2, 1:2]),
        torch.ones(1),
        uniform[2, 1:2],
    )
    torch.testing.assert_close(alone.deter[0], before.deter[2, 1])
