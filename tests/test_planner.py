"""Test MPPI against a plain loop over environments, samples and time, and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.noise import NoiseSource, PlanNoise
from tdmpc2.planner import Plan, estimate_value, plan
from tdmpc2.task_context import NO_TASK, TaskContext
from tests.helpers import THREE_TASKS, env_spec, hand_agent, make_agent, tiny_config

# --- a planner in plain loops --------------------------------------------------------


def row(context: TaskContext, b: int) -> TaskContext:
    """Return the context of one environment, `(1, ·)`."""
    return TaskContext(*(None if x is None else x[b : b + 1] for x in context))


def value_by_loops(
    agent: TDMPC2,
    z: Tensor,
    actions: Tensor,
    context: TaskContext,
    gamma: float,
    noise: Tensor,
    heads: list[int],
    dropout: Tensor | None,
) -> float:
    """Return the value of one action sequence `(H, A)` from one latent `(1, L)`."""
    model, value, ended = agent.model, 0.0, False
    decode = model.regression.decode
    for t, action in enumerate(actions[:, None]):
        if not ended:
            value += gamma**t * decode(model.reward(z, action, context)).item()
        z = model.next(z, action, context)
        if model.termination_head is not None:
            ended = ended or model.termination(z, context).item() > 0.0
    action = model.pi(z, noise[None], context).action
    factors = None if dropout is None else torch.ones(model.config.num_q, 1, dropout.shape[-1])
    if factors is not None:
        factors[heads] = dropout[:, None]
    q = decode(model.q(z, action, context, dropout=factors))[:, 0]
    if not ended:
        value += gamma ** len(actions) * sum(q[i].item() for i in heads) / len(heads)
    return value


def plan_by_loops(
    agent: TDMPC2,
    obs: Tensor,
    context: TaskContext,
    gamma: float,
    mean: Tensor,
    noise: PlanNoise,
    b: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return action `(A,)`, mean and standard deviation `(H, A)` for environment b."""
    c, model = agent.config, agent.model
    z0 = model.encode(obs[b : b + 1], context)
    mask = torch.ones(mean.shape[-1]) if context.action_mask is None else context.action_mask[0]
    sequences = []
    for p in range(c.num_pi_samples):
        z, steps = z0, []
        for t in range(c.horizon):
            steps.append(model.pi(z, noise.policy[t, b, p][None], context).action)
            z = model.next(z, steps[-1], context)
        sequences.append(torch.cat(steps))
    std = torch.full_like(mean, c.max_std)
    for i in range(c.num_iterations(agent.env.action_dim)):
        drawn = [
            (mean + std * noise.samples[i, :, b, n]).clip(-1, 1) * mask
            for n in range(c.num_samples - c.num_pi_samples)
        ]
        candidates = sequences + drawn
        heads = list(range(c.num_q)) if noise.heads is None else noise.heads[i].tolist()
        values = []
        for n, actions in enumerate(candidates):
            dropout = None if noise.dropout is None else noise.dropout[i][:, b, n]
            terminal = noise.terminal_policy[i, b, n]
            values.append(
                value_by_loops(agent, z0, actions, context, gamma, terminal, heads, dropout)
            )
        elites = sorted(range(len(values)), key=lambda n: -values[n])[: c.num_elites]
        weights = [math.exp(c.temperature * (values[n] - values[elites[0]])) for n in elites]
        weights = [w / sum(weights) for w in weights]
        new = sum(w * candidates[n] for w, n in zip(weights, elites, strict=True))
        deviations = (candidates[n] - new for n in elites)
        spread = sum(w * d**2 for w, d in zip(weights, deviations, strict=True))
        mean = (c.momentum * mean + (1 - c.momentum) * new) * mask
        std = spread.sqrt().clip(agent.min_std(), c.max_std) * mask
    keys = [
        math.log(w) - math.log(e) for w, e in zip(weights, noise.elite[b].tolist(), strict=True)
    ]
    action = candidates[elites[int(np.argmax(keys))]][0]
    if noise.action is not None:
        action = action + std[0] * noise.action[b]
    return action.clip(-1, 1), mean, std


def draw(agent: TDMPC2, batch: int, *, explore: bool = True) -> PlanNoise:
    """Return the noise of one planning call."""
    generator = torch.Generator().manual_seed(7)
    source = NoiseSource(agent.config, agent.env.action_dim, agent.env.pixels, generator)
    return source.plan(batch, explore=explore)


def run_plan(
    agent: TDMPC2, obs: Tensor, task: Tensor | None, previous_mean: Tensor, noise: PlanNoise
) -> Plan:
    """Run the planner under test."""
    return plan(
        agent.config,
        agent.model,
        obs,
        agent.model.context(task),
        agent.discount(task, len(obs)),
        previous_mean,
        noise,
        min_std=agent.min_std(),
    )


CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "simnorm off": {"latent_norm": "none", "hidden_norm": "none"},
    "num_q=1": {"num_q": 1},
    "num_q=2": {"num_q": 2},
    "num_q=5": {"num_q": 5},
    "momentum": {"momentum": 0.3},
    "no prior samples": {"num_pi_samples": 0},
    "prior samples only": {"num_pi_samples": 12},
    "horizon=1": {"horizon": 1},
    "mse": {"regression": "mse"},
    "gaussian noise": {"policy_prior": "gaussian_noise"},
    "dropout everywhere": {"dropout_in": "everywhere", "dropout": 0.5},
    "large action space": {"action_dims": (20,)},
    "episodic": {"episodic": True},
    "three tasks": {"task_dim": 4, "momentum": 0.2},
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_plan_is_the_plain_loop(case: str) -> None:
    """A batch of two environments equals separate plans, computed sample by sample."""
    fields = {"horizon": 2, **CASES[case]}
    action_dims, episodic = fields.pop("action_dims", (2,)), fields.pop("episodic", False)
    multitask = "task_dim" in fields
    env = THREE_TASKS if multitask else env_spec((5,), action_dims, episodic=episodic)
    agent = make_agent(tiny_config(**fields), env)
    task = torch.tensor([1, 0]) if multitask else None
    obs, noise = torch.randn(2, 5), draw(agent, 2)
    start = 0.3 * torch.randn(agent.config.horizon, 2, env.action_dim)
    result = run_plan(agent, obs, task, start, noise)
    gammas = [0.95, 0.99] if multitask else [0.99, 0.99]  # by episode length: 100 and 500
    for b in range(2):
        context = row(agent.model.context(task), b)
        expected = plan_by_loops(agent, obs, context, gammas[b], start[:, b], noise, b)
        ours = (result.action[b], result.mean[:, b], result.std[:, b])
        for value, reference in zip(ours, expected, strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-3, atol=2e-4)
    if multitask:
        assert not result.action[0, 1:].any()  # task 1 has one action dimension
        assert not result.mean[:, 0, 1:].any()
        assert not result.std[:, 0, 1:].any()


@torch.no_grad()
def test_a_batch_of_environments_equals_one_by_one() -> None:
    agent = make_agent(tiny_config(horizon=3))
    obs, noise, start = torch.randn(4, 5), draw(agent, 4), torch.zeros(3, 4, 2)
    batch = run_plan(agent, obs, None, start, noise)
    for b in range(4):
        one = slice(b, b + 1)
        single = PlanNoise(
            policy=noise.policy[:, one],
            samples=noise.samples[:, :, one],
            terminal_policy=noise.terminal_policy[:, one],
            heads=noise.heads,
            elite=noise.elite[one],
            action=noise.action[one],
        )
        alone = run_plan(agent, obs[one], None, start[:, one], single)
        torch.testing.assert_close(alone.action[0], batch.action[b], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.mean[:, 0], batch.mean[:, b], rtol=1e-4, atol=1e-5)


# --- by hand -------------------------------------------------------------------------


def hand_value(agent: TDMPC2, z: float, actions: list[float], **kwargs: Any) -> float:
    """Return the value of one sequence in the hand-made model, without noise."""
    value = estimate_value(
        agent.model,
        torch.tensor([[[z]]]),
        torch.tensor(actions)[:, None, None, None],
        NO_TASK,
        torch.tensor([[0.5]]),
        torch.zeros(1, 1, 1),
        kwargs.get("heads"),
    )
    return value.item()


def test_value_by_hand() -> None:
    """From z = 1 with actions ½, −½: R = 1.5, 3.5; z_2 = 1; Q = i·1 + tanh ½, i = 1, 2."""
    agent = hand_agent(horizon=2)
    terminal = 1.5 + math.tanh(0.5)
    expected = 1.5 + 0.5 * 3.5 + 0.25 * terminal
    assert hand_value(agent, 1.0, [0.5, -0.5]) == pytest.approx(expected, abs=1e-4)


def test_value_averages_the_chosen_heads() -> None:
    agent = hand_agent(num_q=4, horizon=1)  # Q_i(1, a) = i + 1 + a
    for heads, mean in (([0, 3], 2.5), ([1, 2], 2.5), ([3, 2], 3.5), ([0, 1], 1.5)):
        value = hand_value(agent, 1.0, [0.0], heads=torch.tensor(heads))
        assert value == pytest.approx(2.0 + 0.5 * (mean + math.tanh(0.5)), abs=1e-4)


@pytest.mark.parametrize(
    ("z", "actions", "expected"),
    [
        # Terminates at z > 1.5. Never: rewards, then the mean of Q_1 and Q_2 at z_2 = 1.
        (1.0, [0.5, -0.5], 1.5 + 0.5 * 3.5 + 0.25 * (1.5 + math.tanh(0.5))),
        # After the second step, at z_2 = 2: both rewards, no terminal value.
        (1.0, [0.4, 0.6], 1.6 + 0.5 * 2.2),
        # After the first step, at z_1 = 2: one reward, although z_2 = 1 alone would not terminate.
        (1.0, [1.0, -1.0], 1.0),
    ],
)
def test_episodic_value_in_two_steps(z: float, actions: list[float], expected: float) -> None:
    agent = hand_agent(horizon=2, episodic=True)
    assert hand_value(agent, z, actions) == pytest.approx(expected, abs=1e-4)


def test_nan_values_become_zero() -> None:
    agent = hand_agent(horizon=1)
    actions = torch.tensor([0.0, float("nan"), 0.5]).view(1, 1, 3, 1)
    value = estimate_value(
        agent.model,
        torch.ones(1, 3, 1),
        actions,
        NO_TASK,
        torch.tensor([[0.5]]),
        torch.zeros(1, 3, 1),
        None,
    )
    assert value[0, 1] == 0.0
    assert (value[0, [0, 2]] != 0.0).all()


# From s = 0 with the actions −½, 0, ½: R = −a and, with a gain of 3, Q = 3·(1.5·a + tanh ½a).
ACTIONS = [-0.5, 0.0, 0.5]
VALUES = [-a + 0.5 * 3 * (1.5 * a + math.tanh(a / 2)) for a in ACTIONS]


def three_actions(batch: int, **overrides: Any) -> tuple[TDMPC2, PlanNoise]:
    """Return a one-step planner whose samples are `ACTIONS` (the initial σ is 2)."""
    sizes = {"horizon": 1, "iterations": 1, "num_samples": 3, "num_elites": 3, "num_pi_samples": 0}
    agent = hand_agent(q_gain=3.0, **sizes, **overrides)
    agent.decisions = agent.config.min_std_decisions  # σ_min is at the end of its schedule, 0.05
    source = NoiseSource(agent.config, 1, False, torch.Generator().manual_seed(0))
    noise = source.plan(batch, explore=False)
    samples = (torch.tensor(ACTIONS) / 2).view(1, 1, 1, 3, 1).expand(1, 1, batch, 3, 1)
    return agent, noise._replace(
        samples=samples, terminal_policy=torch.zeros_like(noise.terminal_policy)
    )


def weights_by_hand(temperature: float) -> list[float]:
    """Weights are exp(temperature·(V − max V)), normalized."""
    raw = [math.exp(temperature * (v - max(VALUES))) for v in VALUES]
    return [w / sum(raw) for w in raw]


def test_mean_and_standard_deviation_by_hand() -> None:
    agent, noise = three_actions(1, temperature=1.5)
    weights = weights_by_hand(1.5)
    mean = sum(w * a for w, a in zip(weights, ACTIONS, strict=True))
    std = sum(w * (a - mean) ** 2 for w, a in zip(weights, ACTIONS, strict=True)) ** 0.5
    result = run_plan(agent, torch.zeros(1, 1), None, torch.zeros(1, 1, 1), noise)
    assert result.mean.item() == pytest.approx(mean, abs=1e-4)
    assert result.std.item() == pytest.approx(std, abs=1e-4)


def test_momentum_by_hand() -> None:
    """μ = m·μ_old + (1 − m)·μ_elites, while σ is that of the elites."""
    agent, noise = three_actions(1, momentum=0.25)
    # Samples are around the old mean, so it is subtracted from the noise.
    noise = noise._replace(samples=noise.samples - 0.3 / 2)
    result = run_plan(agent, torch.zeros(1, 1), None, torch.full((1, 1, 1), 0.3), noise)
    elite_mean = sum(w * a for w, a in zip(weights_by_hand(0.5), ACTIONS, strict=True))
    assert result.mean.item() == pytest.approx(0.25 * 0.3 + 0.75 * elite_mean, abs=1e-4)


@pytest.mark.parametrize(
    ("temperature", "max_std", "std"),
    [
        (1000.0, 2.0, 0.05),  # one elite has all the weight, so that the standard deviation is 0
        (0.0, 2.0, (1 / 6) ** 0.5),  # equal weights
        (0.0, 0.06, 0.06),
    ],
)
def test_standard_deviation_is_clipped(temperature: float, max_std: float, std: float) -> None:
    agent, noise = three_actions(1, temperature=temperature, max_std=max_std, initial_min_std=0.05)
    noise = noise._replace(samples=noise.samples * 2 / max_std)
    result = run_plan(agent, torch.zeros(1, 1), None, torch.zeros(1, 1, 1), noise)
    assert result.std.item() == pytest.approx(std, abs=1e-6)


def test_elites_are_drawn_in_proportion_to_their_weight() -> None:
    """Frequencies in 20,000 environments are within five standard errors of the weights."""
    num = 20_000
    agent, noise = three_actions(num, temperature=1.0)
    result = run_plan(agent, torch.zeros(num, 1), None, torch.zeros(1, num, 1), noise)
    for action, weight in zip(ACTIONS, weights_by_hand(1.0), strict=True):
        share = (result.action - action).abs().lt(1e-4).float().mean().item()
        assert abs(share - weight) < 5 * (weight * (1 - weight) / num) ** 0.5
        assert weight > 0.05


def test_exploration_adds_noise_of_the_final_standard_deviation() -> None:
    agent, noise = three_actions(5)
    extra = torch.tensor([[0.0], [0.1], [-0.2], [5.0], [-5.0]])
    obs, start = torch.zeros(5, 1), torch.zeros(1, 5, 1)
    quiet = run_plan(agent, obs, None, start, noise)
    noisy = run_plan(agent, obs, None, start, noise._replace(action=extra))
    expected = (quiet.action + quiet.std[0] * extra).clip(-1, 1)
    torch.testing.assert_close(noisy.action, expected)
    assert torch.equal(noisy.mean, quiet.mean)
    assert noisy.action[3] == 1.0


def test_evaluation_draws_no_action_noise() -> None:
    agent = make_agent()
    assert draw(agent, 2, explore=False).action is None
    assert draw(agent, 2, explore=True).action is not None
