"""Test the agent: acting, warm start, update schedule, seeds and resuming."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import Counters
from tests.helpers import (
    THREE_TASKS,
    env_spec,
    filled_replay,
    hand_agent,
    make_agent,
    random_batch,
    tiny_config,
)

FIRST, LATER = np.array([True]), np.array([False])


def observations(batch: int, seed: int = 0) -> np.ndarray:
    """Return fixed observations `(batch, 5)`."""
    return np.random.default_rng(seed).normal(size=(batch, 5)).astype(np.float32)


def saved(agent: TDMPC2) -> dict[str, Any]:
    """Save the agent's state to a file and load it with `weights_only`."""
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# --- schedule ------------------------------------------------------------------------


def updates(agent: TDMPC2, decisions: int) -> list[int]:
    """Return the updates due after each of the first decisions."""
    return [agent.updates_due("decision", Counters(n, 0, n)) for n in range(1, decisions + 1)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {},
            [0, 0, 0, 3, 1, 1],
        ),  # indices 0..2 are seed decisions; the pretraining updates follow index 3
        ({"pretrain_updates": 7}, [0, 0, 0, 7, 1, 1]),
        ({"pretrain_updates": 0}, [0, 0, 0, 0, 1, 1]),
    ],
    ids=str,
)
def test_updates_due(overrides: dict[str, int], expected: list[int]) -> None:
    agent = TDMPC2(tiny_config(seed_decisions=3, **overrides), env_spec(), seed=0)
    assert updates(agent, 6) == expected
    assert agent.updates_due("episode_end", Counters(6, 0, 6)) == 0


def test_seeding_takes_five_episodes_but_at_least_a_thousand_decisions() -> None:
    assert TDMPC2(tiny_config(), env_spec(), seed=0).seed_decisions == 2501
    short = env_spec(episode_lengths=(100,))
    assert TDMPC2(tiny_config(), short, seed=0).seed_decisions == 1001


def test_the_agent_samples_its_horizon_from_finished_episodes() -> None:
    agent = make_agent(tiny_config(horizon=5))
    assert agent.replay_length == 5
    assert agent.replay_visibility == "episode"


# --- acting --------------------------------------------------------------------------


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("planning", [True, False])
def test_actions_lie_in_the_box_and_padding_gets_zero(planning: bool, explore: bool) -> None:
    agent = make_agent(tiny_config(task_dim=4, planning=planning), THREE_TASKS)
    task = np.array([0, 1, 2, 1])
    for step in range(3):
        first = np.full(4, step == 0)
        action = agent.act(observations(4, step), first=first, explore=explore, task=task)
        assert action.shape == (4, 3)
        assert abs(action).max() <= 1
        assert (action[task == 1][:, 1:] == 0).all()
        assert (action[task == 2][:, 2:] == 0).all()
        assert (action[0] != 0).all()


def test_a_multi_task_agent_asks_for_the_task() -> None:
    agent = make_agent(tiny_config(task_dim=4), THREE_TASKS)
    with pytest.raises(ValueError, match="task"):
        agent.act(observations(1), first=FIRST, explore=True)


def test_without_planning_the_prior_acts() -> None:
    """The prior acts with its mean tanh(s / 2) in evaluation, and with noise in training."""
    agent = hand_agent(planning=False)
    obs = np.linspace(-3, 3, 4000, dtype=np.float32)[:, None]
    first = np.ones(4000, dtype=bool)
    mean = np.tanh(obs / 2)
    quiet = agent.act(obs, first=first, explore=False)
    np.testing.assert_allclose(quiet, mean, atol=1e-5)
    noise = agent.act(obs, first=first, explore=True) - mean
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    assert abs(noise).max() < 0.3


def test_sampled_prior_of_maximum_entropy() -> None:
    agent = hand_agent(planning=False, policy_prior="max_entropy")  # log σ = −4
    obs, first = np.zeros((4000, 1), dtype=np.float32), np.ones(4000, dtype=bool)
    assert agent.act(obs, first=first, explore=True).std() == pytest.approx(math.exp(-4), rel=0.1)
    assert abs(agent.act(obs, first=first, explore=False)).max() < 1e-5


def test_warm_start_is_the_last_mean_shifted_by_one() -> None:
    """With a momentum near 1 the planner keeps its initial mean, which the test can then read."""
    agent = make_agent(tiny_config(momentum=1 - 1e-6))
    last = torch.rand(3, 2, 2) - 0.5
    agent.previous_mean[True] = last.clone()
    agent.act(observations(2), first=np.array([False, True]), explore=True)
    mean = agent.previous_mean[True]
    expected = torch.zeros(3, 2, 2)
    expected[:2, 0] = last[1:, 0]  # the other environment starts an episode
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-4)
    assert agent.previous_mean[False] is None


def test_a_new_batch_of_environments_must_begin_episodes() -> None:
    agent = make_agent()
    agent.act(observations(2), first=np.array([True, True]), explore=True)
    agent.act(observations(1), first=FIRST, explore=True)
    with pytest.raises(ValueError, match="environments"):
        agent.act(observations(2), first=np.array([True, False]), explore=True)


def test_evaluation_does_not_disturb_training() -> None:
    """Actions and updates are equal with and without evaluations in between."""
    config = tiny_config()
    outcomes = []
    for evaluate in (False, True):
        agent, actions = make_agent(config), []
        for step in range(4):
            first = np.array([step == 0])
            actions.append(agent.act(observations(1, step), first=first, explore=True))
            if evaluate:
                agent.act(observations(3), first=np.full(3, step == 0), explore=False)
            agent.update_on(random_batch(config, agent.env, step), agent.train_noise.update(6))
        outcomes.append((np.stack(actions), agent.model.state_dict()))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    for name, value in outcomes[0][1].items():
        assert torch.equal(value, outcomes[1][1][name]), name


def test_each_task_has_the_discount_of_its_episode_length() -> None:
    agent = make_agent(tiny_config(task_dim=4), THREE_TASKS)
    assert agent.discounts.tolist() == pytest.approx([0.99, 0.95, 0.995])
    assert agent.discount(torch.tensor([1, 2]), 2).tolist() == pytest.approx([0.95, 0.995])
    single = make_agent()
    assert single.discount(None, 3).tolist() == pytest.approx([0.99] * 3)


# --- seeds and state -----------------------------------------------------------------


def parameters(agent: TDMPC2) -> list[Tensor]:
    """Return copies of all weights, including target networks."""
    return list(agent.model.state_dict().values())


def test_one_seed_gives_one_agent() -> None:
    before = torch.get_rng_state()
    first = TDMPC2(tiny_config(), env_spec(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)  # global generators are not used
    torch.manual_seed(99)
    same, other = (TDMPC2(tiny_config(), env_spec(), seed=seed) for seed in (3, 4))
    assert all(map(torch.equal, parameters(first), parameters(same)))
    assert not all(map(torch.equal, parameters(first), parameters(other)))
    obs = observations(1)
    actions = [a.act(obs, first=FIRST, explore=True) for a in (first, same, other)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert (actions[0] != actions[2]).any()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"policy_prior": "gaussian_noise", "dropout": 0.2, "dropout_in": "everywhere"},
        {"prioritized_replay": True, "task_dim": 4},
    ],
    ids=str,
)
def test_a_restored_agent_continues_bit_for_bit(overrides: dict[str, Any]) -> None:
    """Acts, evaluations and updates after loading equal those of the agent that was saved."""
    config = tiny_config(**overrides)
    env = THREE_TASKS if config.task_dim else env_spec()
    task = np.array([1]) if config.task_dim else None

    def go_on(agent: TDMPC2, seed: int) -> list[np.ndarray]:
        replay, actions = filled_replay(config, env, seed), []
        for n in range(3):
            agent.updates_due("decision", Counters(100 * (seed + 1) + n, n, n))
            first = np.array([seed == 0 and n == 0])
            for explore in (True, False):
                action = agent.act(observations(1, n), first=first, explore=explore, task=task)
                actions.append(action)
            agent.update(replay)
        return actions

    agent = make_agent(config, env)
    go_on(agent, seed=0)
    restored = TDMPC2(config, env, seed=77)
    restored.load_state_dict(saved(agent))
    assert restored.min_std() == agent.min_std()
    expected, actions = go_on(agent, seed=1), go_on(restored, seed=1)
    for ours, theirs in zip(actions, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(parameters(restored), parameters(agent), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(restored.value_scale, agent.value_scale)


@pytest.mark.parametrize(
    "left_out",
    ["optimizer", "policy_optimizer", "value_scale", "train_noise", "eval_noise", "previous_mean"],
)
def test_every_part_of_the_state_matters(left_out: str) -> None:
    """An agent restored without one field of its state continues differently."""
    config = tiny_config(regression="mse")
    agent = make_agent(config)
    agent.value_scale.fill_(50.0)
    replay = filled_replay(config, agent.env)
    agent.act(observations(1), first=FIRST, explore=True)
    agent.act(observations(1), first=FIRST, explore=False)
    agent.update(replay)
    restored = make_agent(config, seed=77)
    state = saved(agent)
    restored.load_state_dict(state | {left_out: restored.state_dict()[left_out]})
    outcomes = []
    for each in (agent, restored):
        actions = [each.act(observations(1), first=LATER, explore=e) for e in (True, False)]
        each.update_on(random_batch(config, agent.env), each.train_noise.update(6))
        outcomes.append([torch.from_numpy(np.stack(actions)), *parameters(each)])
    assert not all(map(torch.equal, *outcomes))


def test_prioritised_updates_write_priorities_back() -> None:
    """Priorities are (Σ_t ρ^t mean_i |Q̂ − y| + 1e-6)^0.6 for sampled rows and 1 elsewhere."""
    config = tiny_config(prioritized_replay=True)
    agent, replay, twin = make_agent(config), *(filled_replay(config, env_spec()) for _ in "ab")
    noise_state = agent.train_noise.generator.get_state()
    batch = twin.sample(config.batch_size, config.horizon)
    _, _, _, priority = agent.model_loss(batch, agent.train_noise.update(config.batch_size))
    agent.train_noise.generator.set_state(noise_state)
    agent.update(replay)
    expected = {row: 1.0 for row in twin.state_dict()["priorities"].nonzero().flatten().tolist()}
    for row, value in zip(batch.start.tolist(), priority.tolist(), strict=True):
        expected[row] = (value + 1e-6) ** 0.6
    leaves = replay.state_dict()["priorities"]
    assert leaves.nonzero().flatten().tolist() == sorted(expected)
    for row, value in expected.items():
        assert leaves[row].item() == pytest.approx(value, rel=1e-5)


class _NoWaiting(TorchDispatchMode):
    """Raises an error for operations that synchronize the host with a GPU."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        assert name not in self.WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("overrides", [{}, {"num_q": 2}, {"dropout_in": "everywhere"}], ids=str)
def test_planning_and_updates_never_wait_for_the_device(overrides: dict[str, Any]) -> None:
    """Acting and updates read no tensor values on the host, except the action."""
    agent = make_agent(tiny_config(**overrides))
    replay = filled_replay(agent.config, agent.env)
    with _NoWaiting():
        agent.update(replay)
        agent.act(np.zeros((1, 5), np.float32), first=np.array([True]), explore=True)
        agent.act(np.zeros((1, 5), np.float32), first=np.array([False]), explore=True)
    with pytest.raises(AssertionError, match="waits for the device"), _NoWaiting():
        torch.ones(1).item()
