"""Test TD-MPC against plain loops: losses, schedules of the planner, multi-task learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.tdmpc.agent import TDMPC
from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.losses import model_loss, policy_loss
from tdmpc2.common.interfaces import Counters, EnvSpec
from tdmpc2.common.system.errors import UserError
from tests.baselines.shapes import (
    DOG,
    HUMANOID,
    SMALL,
    TWO_TASKS,
    WALKER,
    Random,
    random_batch,
)

TINY = {"enc_dim": 16, "mlp_dim": 16, "latent_dim": 6, "batch_size": 9, "horizon": 3}
FEW = {"num_samples": 12, "num_pi_samples": 2, "num_elites": 4, "iterations": 2}


def make(env: EnvSpec = SMALL, **overrides: object) -> TDMPC:
    multitask = env.num_tasks > 1
    config = TDMPCConfig.make(multitask=multitask, **{**TINY, **FEW, **overrides})
    return TDMPC(config, env, seed=0)


def perturb(agent: TDMPC) -> None:
    """Randomize the heads that start at zero."""
    random = Random(7)
    for parameter in agent.model.parameters():
        parameter.data += 0.1 * random.normal(*parameter.shape)


# --- architecture ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "count"), [(WALKER, 1_507_693), (DOG, 1_807_089), (HUMANOID, 1_723_616)]
)
def test_parameter_counts(env: EnvSpec, count: int) -> None:
    """Walker: 1,507,693 parameters; dog and humanoid, with larger latents: 1.7 to 1.8M."""
    assert TDMPC(TDMPCConfig.make(), env, seed=0).num_parameters() == count


def test_rewards_and_values_start_at_zero() -> None:
    agent = make()
    z, action = torch.randn(4, 6), torch.randn(4, 2)
    assert torch.equal(agent.model.reward(z, action), torch.zeros(4))
    assert torch.equal(agent.model.both_q(z, action), torch.zeros(2, 4))
    for parameter in agent.model.encoder.layers[0].weight[None]:
        eye = parameter.T @ parameter
        torch.testing.assert_close(eye, torch.eye(5), atol=1e-5, rtol=0)


def test_q_has_a_norm_and_a_tanh_first() -> None:
    agent = make()
    perturb(agent)
    x, q = torch.randn(4, 8), agent.model.q_functions[0]
    first, second, last = q.layers
    h = torch.tanh(torch.nn.functional.layer_norm(first(x), (16,), q.norm.weight, q.norm.bias))
    expected = last(torch.nn.functional.elu(second(h)))
    torch.testing.assert_close(q(x), expected)
    torch.testing.assert_close(q(x[:, :6], x[:, 6:]), expected)  # as separate inputs


# --- losses ------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [1e4, 1e-2])
def test_model_loss_by_hand(clip: float) -> None:
    agent = make(loss_clip=clip)
    perturb(agent)
    m, batch = agent.model, random_batch(SMALL, 3, 9)
    weight = torch.linspace(0.1, 1, 9)
    noise = Random(3).normal(3, 9, 2)
    total, priorities = 0.0, []
    with torch.no_grad():
        for i in range(9):
            z = m.encoder(batch.obs[0, i])
            sums, priority = {"c": 0.0, "r": 0.0, "v": 0.0}, 0.0
            for t in range(3):
                action, after = batch.action[t, i], batch.obs[t + 1, i]
                online = m.encoder(after)
                pi = torch.tanh(m.policy(online)) + (0.05 * noise[t, i]).clamp(-0.3, 0.3)
                joint = torch.cat([online, pi.clamp(-1, 1)])
                least = min(float(q(joint)) for q in m.target_q_functions)
                alive = 1 - float(batch.terminated[t, i])
                y = float(batch.reward[t, i]) + 0.99 * alive * least
                here = torch.cat([z, action])
                rho = 0.5**t
                for q in m.q_functions:
                    sums["v"] += rho * (float(q(here)) - y) ** 2
                    priority += rho * abs(float(q(here)) - y)
                sums["r"] += rho * float(m.reward_head(here) - batch.reward[t, i]) ** 2
                z = m.dynamics(here)
                sums["c"] += rho * float((z - m.target_encoder(after)).square().mean())
            cut = {name: min(value, clip) for name, value in sums.items()}
            total += float(weight[i]) * (2 * cut["c"] + 0.5 * cut["r"] + 0.1 * cut["v"])
            priorities.append(min(priority, clip))
    outcome = model_loss(
        agent.config, m, batch._replace(weight=weight), agent.discount(None, 9), noise
    )
    assert outcome.loss.item() == pytest.approx(total / 9 / 3, rel=1e-4)
    torch.testing.assert_close(outcome.priority, torch.tensor(priorities), rtol=1e-4, atol=1e-5)


def test_policy_loss_by_hand_and_whom_it_reaches() -> None:
    agent = make()
    perturb(agent)
    m, latents, noise = agent.model, Random(1).normal(4, 9, 6), Random(2).normal(4, 9, 2)
    expected = 0.0
    for t in range(4):
        action = m.pi(latents[t], noise[t]).action
        expected -= 0.5**t * m.both_q(latents[t], action).amin(0).mean().item()
    loss = policy_loss(agent.config, m, latents, None, noise).loss
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    reached = {name.partition(".")[0] for name, p in m.named_parameters() if p.grad is not None}
    assert reached == {"policy"}


def test_targets_move_every_other_update_encoder_and_q() -> None:
    agent = make()
    batch, noise = random_batch(SMALL, 3, 9), Random(1).normal(7, 9, 2)
    m = agent.model
    targets = [*m.target_encoder.parameters(), *m.target_q_functions.parameters()]
    online = [*m.encoder.parameters(), *m.q_functions.parameters()]
    start = [p.clone() for p in targets]
    agent.update_on(batch, noise)
    assert all(torch.equal(a, b) for a, b in zip(start, targets, strict=True))
    agent.update_on(batch, noise)
    for a, b, p in zip(start, targets, online, strict=True):
        torch.testing.assert_close(b, a + 0.01 * (p - a))


def test_the_model_step_leaves_the_policy_and_is_clipped() -> None:
    agent = make(grad_clip_norm=0.1)
    perturb(agent)
    metrics, _ = agent.update_on(random_batch(SMALL, 3, 9), Random(1).normal(7, 9, 2))
    assert metrics["grad_norm"] > 0.1
    norm = torch.nn.utils.get_total_norm([p.grad for p in agent.model_params])
    assert norm.item() == pytest.approx(0.1, rel=1e-3)
    assert make().config.grad_clip_norm == 10
    assert {id(p) for p in agent.model_params}.isdisjoint({id(p) for p in agent.policy_params})


# --- planning ----------------------------------------------------------------------------


def test_schedules() -> None:
    """The horizon grows from 1 to 5 and σ shrinks from 0.5 to 0.05 over 25,000 decisions."""
    config = TDMPCConfig.make()
    places = (0, 6_249, 6_250, 12_500, 18_749, 18_750, 24_999, 25_000, 10**6)
    assert [config.planning_horizon(n) for n in places] == [1, 1, 2, 3, 3, 4, 4, 5, 5]
    stds = [config.planning_min_std(n) for n in (0, 12_500, 25_000, 10**6)]
    assert stds == pytest.approx([0.5, 0.275, 0.05, 0.05])


def test_the_plan_is_as_long_as_the_schedule_of_the_last_episode_says() -> None:
    agent = make(horizon_decisions=100)
    obs = np.zeros((1, 5), np.float32)
    agent.updates_due("episode_end", Counters(0, 0, 50))
    agent.act(obs, first=np.array([True]), explore=True)
    assert agent.previous_mean[True].shape == (1, 1, 2)
    agent.updates_due("decision", Counters(80, 0, 30))  # no change within an episode
    agent.act(obs, first=np.array([False]), explore=True)
    assert agent.previous_mean[True].shape == (1, 1, 2)
    agent.updates_due("episode_end", Counters(100, 0, 50))
    agent.act(obs, first=np.array([True]), explore=True)
    assert agent.previous_mean[True].shape == (3, 1, 2)


def test_the_value_of_a_plan_takes_the_lesser_q() -> None:
    agent = make()
    perturb(agent)
    z, action = torch.randn(1, 4, 6), torch.randn(1, 4, 2)
    q = agent.model.q(z, action)
    assert torch.equal(q[0], agent.model.both_q(z, action).amin(0))


def test_exploration_may_leave_the_bounds_unless_clipped() -> None:
    obs, first = np.zeros((200, 5), np.float32), np.ones(200, bool)
    free = make(initial_min_std=2.0).act(obs, first=first, explore=True)
    assert np.abs(free).max() > 1
    clipped = make(initial_min_std=2.0, clip_action=True).act(obs, first=first, explore=True)
    assert np.abs(clipped).max() == 1
    evaluated = make(initial_min_std=2.0).act(obs, first=first, explore=False)
    assert np.abs(evaluated).max() <= 1


def test_warm_starts_end_with_zeros_and_begin_anew() -> None:
    agent = make(horizon_decisions=1)
    agent.decisions = 10
    agent.previous_mean[True] = torch.arange(12.0).view(3, 2, 2)
    start = agent.warm_start(np.array([False, True]), True, 3)
    assert torch.equal(start[:2, 0], agent.previous_mean[True][1:, 0])
    assert not start[2].any()
    assert not start[:, 1].any()


# --- schedule of learning ------------------------------------------------------------------


def test_as_many_updates_as_decisions_after_each_episode() -> None:
    agent = make(seed_decisions=100)
    assert agent.seed_decisions == 100
    assert agent.updates_due("decision", Counters(500, 7, 20)) == 0
    assert agent.updates_due("episode_end", Counters(50, 0, 50)) == 0
    assert agent.updates_due("episode_end", Counters(100, 0, 50)) == 100
    assert agent.updates_due("episode_end", Counters(150, 100, 50)) == 50
    assert make(pretrain_updates=3).updates_due("episode_end", Counters(5000, 0, 50)) == 3


def test_learning_begins_without_pretraining() -> None:
    agent = make(seed_decisions=110, pretrain_updates=0)
    due = [agent.updates_due("episode_end", Counters(n, 0, 50)) for n in (100, 150, 200)]
    assert due == [0, 0, 50]


def test_settings_of_tasks() -> None:
    config = TDMPCConfig.make()
    dog, humanoid, walker = (config.for_task(t) for t in ("dog-run", "humanoid-run", "walker-run"))
    assert (dog.iterations, dog.latent_dim, dog.lr) == (8, 100, 3e-4)
    assert (humanoid.iterations, humanoid.latent_dim, humanoid.lr) == (12, 100, 1e-3)
    assert (walker.iterations, walker.latent_dim, walker.lr) == (6, 50, 1e-3)
    assert TDMPCConfig.make(latent_dim=50).for_task("dog-run").latent_dim == 50
    assert TDMPCConfig.make(task_settings="none").for_task("dog-run") == walker_without_table()


def walker_without_table() -> TDMPCConfig:
    return TDMPCConfig.make(task_settings="none").for_task("walker-run")


@pytest.mark.parametrize(
    "bad",
    [
        {"num_elites": 1000},
        {"rho": 1.5},
        {"momentum": 1.0},
        {"num_enc_layers": 1},
        {"model_size": "7"},
        {"nonsense": 1},
        {"discount": 0.97, "discount_from": "episode_length"},
    ],
)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(UserError):
        TDMPCConfig.make(**bad)


# --- several tasks -----------------------------------------------------------------------


def test_padded_actions_are_zero_and_without_gradient() -> None:
    agent = make(TWO_TASKS)
    perturb(agent)
    batch, noise = random_batch(TWO_TASKS, 3, 9), Random(1).normal(7, 9, 3)
    context = agent.model.context(batch.task)
    mean = agent.model.policy(torch.zeros(9, 6), context.embedding)
    mean.retain_grad()
    sample = agent.model.prior.sample(mean, noise[0], context.action_mask)
    assert not sample.action[1::2, 1:].any()  # the second task has one dimension
    sample.action.sum().backward()
    assert not mean.grad[1::2, 1:].any()
    assert mean.grad[::2].all()
    obs = np.zeros((2, 5), np.float32)
    first = np.ones(2, bool)
    action = agent.act(obs, first=first, explore=True, task=np.array([0, 1]))
    assert action[0].all()
    assert not action[1, 1:].any()


def test_several_tasks_learn_their_embeddings_within_the_unit_ball() -> None:
    agent = make(TWO_TASKS)
    agent.model.task_embedding.data *= 1e4
    before = agent.model.task_embedding.detach().clone()
    agent.update_on(random_batch(TWO_TASKS, 3, 9), Random(1).normal(7, 9, 3))
    after = agent.model.task_embedding
    assert (after != before).all()
    assert (after.norm(dim=1) <= 1.2).all()
    assert agent.discount(torch.tensor([0, 1]), 2).tolist() == pytest.approx([0.99, 0.99])


@pytest.mark.parametrize("size", ["5", "19"])
def test_larger_sizes_are_those_of_tdmpc2(size: str) -> None:
    config = TDMPCConfig.make(model_size=size, multitask=True).for_task("")
    widths = {"5": (256, 512, 512, 96), "19": (1024, 1024, 768, 96)}
    assert (config.enc_dim, config.mlp_dim, config.latent_dim, config.task_dim) == widths[size]
    assert config.batch_size == 1024
