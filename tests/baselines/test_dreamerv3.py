"""DreamerV3 against plain loops and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dreamerv3 import behaviour as behaviours
from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.behaviour import Noise, imagine, lambda_returns, learn, moved_range
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import Hidden, Output
from baselines.dreamerv3.rssm import State, bounded, draw, log_probs
from baselines.dreamerv3.world_model import balanced_divergence, divergence, model_loss
from tdmpc2.common.errors import UserError
from tdmpc2.common.learning import differentiate
from tdmpc2.common.protocols import Counters, EnvSpec
from tests.baselines.shapes import DOG, SMALL, WALKER, Random, random_sequences

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
    config = DreamerV3Config.make(model_size="small", **{**TINY, **overrides})
    return DreamerV3(config, SMALL, seed=0)


def perturb(agent: DreamerV3) -> None:
    """Heads that start at zero say something."""
    random = Random(7)
    for network in (agent.model, agent.behaviour):
        for parameter in network.parameters():
            parameter.data += 0.1 * random.normal(*parameter.shape)


def model_noise(agent: DreamerV3, seed: int = 1) -> Tensor:
    return Random(seed).uniform(5, 3, 3)


def imagination_noise(starts: int = 15, seed: int = 2) -> Noise:
    random = Random(seed)
    return Noise(random.normal(4, starts, 2), random.uniform(4, starts, 3))


def starts(agent: DreamerV3, num: int = 15) -> State:
    log_p = torch.log_softmax(Random(4).normal(num, 3, 4), -1)
    return State(Random(3).normal(num, 6), draw(log_p, Random(5).uniform(num, 3)).detach())


# --- layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("env", "count"), [(WALKER, 18_708_003), (DOG, 19_164_970)])
def test_parameter_counts(env: EnvSpec, count: int) -> None:
    """18,708,003 for walker; about 19.2M for dog."""
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
    assert torch.allclose(agent.model.reward(state), torch.zeros(15), atol=1e-5)
    assert not agent.behaviour.critic(*state)[0].any()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            agent.behaviour.critic.parameters(),
            agent.behaviour.slow_critic.parameters(),
            strict=True,
        )
    )


# --- categorical states --------------------------------------------------------------------


def test_unimix() -> None:
    logits = torch.tensor([[0.0, 50.0, -50.0, 0.0]])
    probs = log_probs(logits, 0.01).exp()
    torch.testing.assert_close(probs, torch.tensor([[0.0025, 0.9925, 0.0025, 0.0025]]))
    assert torch.equal(log_probs(logits, 0.0).argmax(-1), torch.tensor([1]))


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
    action = torch.tensor([[0.5, -3.0]])  # the second counts as −1
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


def slow_observe(agent: DreamerV3, batch: object, uniform: Tensor) -> tuple[State, Tensor]:
    """`RSSM.observe`, one step after the other."""
    cell, embed = agent.model.rssm, agent.model.encode(batch.obs)
    state, states, logs = State(torch.zeros(3, 6), torch.zeros(3, 12)), [], []
    for t in range(len(batch.obs)):
        fresh, action = cell.begin(state, batch.action[t], batch.first[t])
        deter = cell.advance(fresh, action)
        logs.append(cell.posterior(deter, embed[t]))
        state = State(deter, draw(logs[-1], uniform[t]))
        states.append(state)
    return State(*(torch.stack(x) for x in zip(*states, strict=True))), torch.stack(logs)


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
    action[:3, 1] = 0.9  # and what led to the new one's first observation
    after = observe(obs, action)
    assert (after.deter[:2, 1] != before.deter[:2, 1]).any()
    assert torch.equal(after.deter[2:, 1], before.deter[2:, 1])
    assert torch.equal(after.stoch[2:, 1], before.stoch[2:, 1])
    # It begins as the sequence itself did.
    alone = cell.observe_one(
        State(torch.ones(1, 6), torch.ones(1, 12)),
        torch.ones(1, 2),
        agent.model.encode(batch.obs[2, 1:2]),
        torch.ones(1),
        uniform[2, 1:2],
    )
    torch.testing.assert_close(alone.deter[0], before.deter[2, 1])


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
                here = State(state.deter[t, i], state.stoch[t, i])
                obs = batch.obs[t, i]
                symlog = torch.sign(obs) * torch.log1p(obs.abs())
                total += float((m.decoder(*here)[0] - symlog).square().sum())
                log_bins = torch.log_softmax(m.reward_head(*here)[0], -1)
                total -= float((two_hot(float(batch.reward[t, i])) * log_bins).sum())
                p = torch.sigmoid(m.continue_head(*here)[0][0])
                ends = float(batch.terminated[t, i])
                total -= math.log(float(1 - p) if ends else float(p))
                kl = divergence(posterior[t, i], prior[t, i]).item()
                total += (0.5 + 0.1) * max(kl, 1.0)
    loss = model_loss(c, m, batch, uniform).loss
    assert loss.item() == pytest.approx(total / 15, rel=1e-4)


def two_hot(x: float, num: int = 255) -> Tensor:
    """Worked out anew: bins from −20 to 20 in symlog space."""
    place = (math.copysign(math.log1p(abs(x)), x) + 20) / 40 * (num - 1)
    below = math.floor(place)
    encoded = torch.zeros(num)
    encoded[below] = 1 - (place - below)
    encoded[min(below + 1, num - 1)] += place - below
    return encoded


@pytest.mark.parametrize("x", [0.0, 1.0, -3.7, 1234.5])
def test_two_hot_in_symlog_space(x: float) -> None:
    regression = make().model.regression
    assert (regression.vmin, regression.vmax, regression.out_dim) == (-20, 20, 255)
    torch.testing.assert_close(regression.two_hot(torch.tensor(x)), two_hot(x), rtol=0, atol=1e-4)
    logits = torch.log(two_hot(x) + 1e-12)
    assert regression.decode(logits).item() == pytest.approx(x, rel=1e-3, abs=1e-4)


# --- behaviour -------------------------------------------------------------------------------


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
    for output, bias in zip(agent.behaviour.actor.outputs, (0.7, -2.0), strict=True):
        output.weight.data.zero_()
        output.bias.data.fill_(bias)
    mean, std = agent.behaviour.policy(starts(agent))
    torch.testing.assert_close(mean, torch.full((15, 2), math.tanh(0.7)))
    torch.testing.assert_close(std, torch.full((15, 2), 0.1 + 0.9 * 0.5))
    noise = Random(1).normal(15, 2)
    torch.testing.assert_close(agent.behaviour.act(starts(agent), noise), mean + std * noise)


def losses_of(agent: DreamerV3, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Actor and critic loss, step by step, as functions of the parameters."""
    c, m, b = agent.config, agent.model, agent.behaviour
    noise, start = imagination_noise(), starts(agent)
    states = imagine(m, b, start, noise)
    value = [b.regression.decode(b.critic(s, z)[0]) for s, z in zip(*states, strict=True)]
    going = [alive]
    for s, z in list(zip(*states, strict=True))[1:]:
        going.append((m.continue_head(s, z)[0][..., 0] > 0).float())
    target: list[Tensor] = [value[-1]]
    for t in range(3, -1, -1):
        state = State(states.deter[t + 1], states.stoch[t + 1])
        after = 0.05 * value[t + 1] + 0.95 * target[0]
        target.insert(0, m.reward(state) + c.discount * going[t + 1] * after)
    returns = torch.stack(target[:-1])
    low, high = np.percentile(returns.detach(), [5, 95])
    spread = max(1.0, 0.99 * 3.0 + 0.01 * float(high - low))
    actor, critic, weight = torch.zeros(()), torch.zeros(()), torch.ones(15)
    for t in range(4):
        state = State(states.deter[t].detach(), states.stoch[t].detach())
        weight = weight * c.discount * going[t]
        std = b.policy(state)[1]
        entropy = torch.distributions.Normal(0.0, std).entropy().sum(-1)
        advantage = (returns[t] - value[t]) / spread
        actor = actor - (weight * (advantage + 3e-4 * entropy)).mean() / 4
        log_bins = torch.log_softmax(b.critic(*state)[0], -1)
        slow = b.regression.decode(b.slow_critic(*state)[0])
        for goal in (returns[t].detach(), slow):
            hot = torch.stack([two_hot(v) for v in goal.tolist()])
            critic = critic - (weight * (hot * log_bins).sum(-1)).mean() / 4
    return actor, critic


def test_losses_of_actor_and_critic_by_hand() -> None:
    agent = make()
    perturb(agent)
    agent.behaviour.slow_critic.outputs[0].bias.data += 0.5
    alive = (torch.arange(15) % 4 > 0).float()
    actor, critic = losses_of(agent, alive)
    b = agent.behaviour
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
        agent.config, agent.model, agent.behaviour, starts(agent), alive, past, imagination_noise()
    )
    held = make()
    perturb(held)
    both = learn(
        held.config, held.model, held.behaviour, starts(held), alive, past, imagination_noise()
    )
    assert both.metrics["critic_loss"] > free.metrics["critic_loss"]
    assert torch.equal(both.actor[0], free.actor[0])
    # It moves 2 % of the way at each update.
    before = [p.clone() for p in held.behaviour.slow_critic.parameters()]
    held.update_on(random_sequences(SMALL, 5, 3), model_noise(held), imagination_noise())
    online, slow = held.behaviour.critic.parameters(), held.behaviour.slow_critic.parameters()
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
    assert behaviours.PERCENTILES == (0.05, 0.95)


# --- acting and schedule ---------------------------------------------------------------------


def test_states_go_on_until_an_episode_begins() -> None:
    agent = make()
    perturb(agent)
    obs = Random(1).normal(2, 5).numpy()
    agent.seed_evaluation(5)
    start = agent.act(obs, first=np.array([True, True]), explore=False)
    memory = agent.memory[False]
    agent.act(obs, first=np.array([True, True]), explore=True)
    assert agent.memory[False] is memory  # training has a memory of its own
    agent.act(obs, first=np.array([False, True]), explore=False)
    state, action = agent.memory[False]
    assert (state.deter[0] != memory[0].deter[0]).any()
    torch.testing.assert_close(state.deter[1], memory[0].deter[1])
    assert torch.equal(action.abs().clamp(max=1), action.abs())
    agent.memory[False] = None
    agent.seed_evaluation(5)
    assert (agent.act(obs, first=np.array([True, True]), explore=False) == start).all()


def test_half_an_update_per_decision() -> None:
    """512 replayed observations per decision in batches of 16 x 64."""
    agent = DreamerV3(DreamerV3Config.make(model_size="small"), SMALL, seed=0)
    assert (agent.num_envs, agent.replay_length, agent.seed_decisions) == (4, 64, 1023)
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
