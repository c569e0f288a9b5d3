"""Test losses and gradient steps against values by hand, plain loops and a plain Adam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.common.replay.types import Batch
from tdmpc2.common.system.errors import UserError
from tdmpc2.losses import td_target
from tdmpc2.noise import UpdateNoise
from tests.helpers import (
    THREE_TASKS,
    env_spec,
    hand_agent,
    make_agent,
    random_batch,
    tiny_config,
)

# Three rows of two transitions of one number each (the hand-made model's world).
STATES = [[1.0, -0.5, 2.0], [1.2, 0.1, 0.4], [0.3, -1.0, 1.7]]
ACTIONS = [[0.5, -0.3, 0.1], [-0.2, 0.8, -0.6]]
REWARDS = [[1.0, 0.0, -2.0], [0.5, 2.0, 1.0]]
TERMINATED = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
WEIGHTS = [1.0, 0.25, 0.5]
TARGET_NOISE = [[0.0, 1.0, -10.0], [2.0, -1.0, 10.0]]
POLICY_NOISE = [[1.0, -1.0, 0.0], [0.5, 30.0, -2.0], [-0.5, 0.0, 3.0]]


def tensor(rows: Sequence[Sequence[float]], dim: bool = True) -> Tensor:
    """`(T, B, 1)`, or `(T, B)`."""
    values = torch.tensor(rows)
    return values[..., None] if dim else values


def hand_batch(*, weighted: bool = False) -> Batch:
    """Return the rows above as a batch."""
    return Batch(
        obs=tensor(STATES),
        action=tensor(ACTIONS),
        reward=tensor(REWARDS, dim=False),
        terminated=tensor(TERMINATED, dim=False),
        weight=torch.tensor(WEIGHTS) if weighted else None,
    )


def hand_noise(heads: list[int] | None = None) -> UpdateNoise:
    """Return the noise above."""
    chosen = None if heads is None else torch.tensor(heads)
    return UpdateNoise(tensor(TARGET_NOISE), chosen, tensor(POLICY_NOISE), chosen)


def noisy_action(z: float, epsilon: float) -> float:
    """Gaussian-noise prior: tanh(z/2) with noise of 0.05, clipped to 0.3 and the box."""
    offset = min(max(0.05 * epsilon, -0.3), 0.3)
    return min(max(math.tanh(z / 2) + offset, -1.0), 1.0)


def losses_by_hand(num_q: int, heads: list[int], weights: list[float]) -> dict[str, float]:
    """Every loss of Eq. 3 for the hand-made model, number by number; γ = ρ = ½, H = 2."""
    out = dict.fromkeys(("consistency_loss", "reward_loss", "value_loss", "termination_loss"), 0.0)
    priorities = []
    for b in range(3):
        z, error = STATES[0][b], 0.0
        for t in range(2):
            a, s_next, rho = ACTIONS[t][b], STATES[t + 1][b], 0.5**t
            a_next = noisy_action(s_next, TARGET_NOISE[t][b])
            bootstrap = min((3 - i) * s_next + a_next + 1 for i in heads)
            y = REWARDS[t][b] + 0.5 * (1 - TERMINATED[t][b]) * bootstrap
            q = [(i + 1) * z + a for i in range(num_q)]
            share = weights[b] / 3 / 2  # the mean over rows, and 1/H
            out["reward_loss"] += share * rho * (2 * z - a - REWARDS[t][b]) ** 2
            out["value_loss"] += share * rho * sum((value - y) ** 2 for value in q) / num_q
            error += rho * sum(abs(value - y) for value in q) / num_q
            z = z + a
            out["consistency_loss"] += share * rho * (z - s_next) ** 2
            ends = 1 / (1 + math.exp(-10 * (z - 1.5)))
            likelihood = ends if TERMINATED[t][b] else 1 - ends
            out["termination_loss"] -= share * math.log(likelihood)
        priorities.append(error)
    return out | {"priorities": priorities}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("num_q", "heads"), [(1, None), (2, None), (3, [0, 2]), (3, [1, 0])], ids=str
)
def test_model_loss_by_hand(num_q: int, heads: list[int] | None, weighted: bool) -> None:
    """Test the model loss with termination, chosen target heads and importance weights."""
    agent = hand_agent(horizon=2, num_q=num_q, episodic=True, prioritized_replay=True)
    loss, latents, metrics, priority = agent.model_loss(
        hand_batch(weighted=weighted), hand_noise(heads)
    )
    expected = losses_by_hand(
        num_q, heads or list(range(num_q)), WEIGHTS if weighted else [1.0] * 3
    )
    priorities = expected.pop("priorities")
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value, rel=1e-4), name
    total = 20 * expected["consistency_loss"] + 0.1 * expected["reward_loss"]
    total += 0.1 * expected["value_loss"] + expected["termination_loss"]
    assert loss.item() == pytest.approx(total, rel=1e-4)
    assert priority.tolist() == pytest.approx(priorities, rel=1e-4)
    z1 = [s + a for s, a in zip(STATES[0], ACTIONS[0], strict=True)]
    torch.testing.assert_close(latents[1, :, 0], torch.tensor(z1), rtol=0, atol=1e-4)
    assert not latents.requires_grad


def test_without_the_flag_there_are_no_priorities() -> None:
    assert hand_agent(horizon=2).model_loss(hand_batch(), hand_noise())[3] is None


@pytest.mark.parametrize(("gain", "scale"), [(1.0, 1.0), (100.0, 1.0), (100.0, 80.0), (0.01, 1.0)])
@pytest.mark.parametrize("heads", [None, [2, 0]], ids=str)
def test_policy_loss_and_value_scale_by_hand(
    gain: float, scale: float, heads: list[int] | None
) -> None:
    """The loss is −mean_t ρ^t mean_b Q/S; S first moves by 1 % toward the 5-95 percentile range."""
    agent = hand_agent(horizon=2, num_q=3 if heads else 2, q_gain=gain)
    agent.value_scale.fill_(scale)
    loss, value_scale, metrics = agent.policy_loss(tensor(STATES), None, hand_noise(heads))
    q = np.zeros((3, 3))
    for t in range(3):
        for b in range(3):
            z = STATES[t][b]
            a = noisy_action(z, POLICY_NOISE[t][b])
            q[t, b] = np.mean([gain * ((i + 1) * z + a) for i in heads or [0, 1]])
    spread = np.percentile(q[0], 95) - np.percentile(q[0], 5)
    new_scale = scale + 0.01 * (max(spread, 1.0) - scale)
    assert value_scale.item() == pytest.approx(new_scale, rel=1e-4)
    assert agent.value_scale.item() == scale  # changes in the update only
    assert metrics["pi_scale"].item() == pytest.approx(new_scale, rel=1e-4)
    expected = -np.mean([0.5**t * q[t].mean() / new_scale for t in range(3)])
    assert loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    if gain == 100.0:
        assert new_scale > 4.0  # far from the initial S
    if gain == 0.01:
        assert new_scale == 1.0  # never below 1


def test_entropy_enters_the_policy_loss_with_its_coefficient() -> None:
    """By hand for one action dimension: logπ = −½ε² − ln σ − ½ln 2π − ln(1 − a² + 1e-6)."""
    agent = hand_agent(horizon=2, policy_prior="max_entropy", entropy_coef=0.3)
    outcome = agent.policy_loss(tensor(STATES), None, hand_noise())
    per_step = []
    for t in range(3):
        objective = []
        for b in range(3):
            z, epsilon = STATES[t][b], POLICY_NOISE[t][b]
            a = math.tanh(z / 2 + math.exp(-4) * epsilon)
            log_prob = -0.5 * epsilon**2 + 4 - 0.5 * math.log(2 * math.pi)
            log_prob -= math.log(1 - a**2 + 1e-6)
            q = 1.5 * z + a
            objective.append(q / outcome.value_scale.item() - 0.3 * log_prob)
        per_step.append(-(0.5**t) * np.mean(objective))
    assert outcome.loss.item() == pytest.approx(np.mean(per_step), rel=1e-4)


def test_td_target_discounts_each_task_by_its_own_episode_length() -> None:
    """Row by row for tasks of 500, 100 and 1000 decisions: 0.99, 0.95 and 0.995."""
    config = tiny_config(task_dim=4, num_q=2)
    agent = make_agent(config, THREE_TASKS)
    batch, model = random_batch(config, THREE_TASKS), agent.model
    noise = agent.train_noise.update(6)
    discount = agent.discount(batch.task, 6)
    _, target = td_target(model, batch, model.context(batch.task), discount, noise)
    gammas = [0.99, 0.95, 0.995]
    for b in range(6):
        context = model.context(batch.task[b : b + 1])
        for t in range(3):
            z = model.encode(batch.obs[t + 1, b : b + 1], context)
            a = model.pi(z, noise.target_policy[t, b : b + 1], context).action
            q = model.regression.decode(model.q(z, a, context, target=True)).min()
            expected = batch.reward[t, b] + gammas[b % 3] * q
            torch.testing.assert_close(target[t, b], expected, rtol=1e-4, atol=1e-5)


# --- gradient steps ------------------------------------------------------------------


def plain_adam(
    start: list[Tensor], steps: list[list[Tensor]], rates: list[float], eps: float, clip: float
) -> list[Tensor]:
    """Adam on gradients whose joint norm is clipped, in float64, tensor by tensor."""
    norms = [math.sqrt(sum(g.double().square().sum().item() for g in grads)) for grads in steps]
    result = []
    for k, parameter in enumerate(start):
        theta = parameter.double()
        m = v = torch.zeros_like(theta)
        for n, (grads, norm) in enumerate(zip(steps, norms, strict=True), start=1):
            g = grads[k].double() * min(1.0, clip / norm)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = (m / (1 - 0.9**n)) / ((v / (1 - 0.999**n)).sqrt() + eps)
            theta = theta - rates[k] * step
        result.append(theta.float())
    return result


def largest_difference(ours: list[Tensor], others: list[Tensor]) -> float:
    """Return the joint norm of all tensors."""
    return max((a - b).abs().max().item() for a, b in zip(ours, others, strict=True))


def snapshot(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Return copies of the parameters."""
    return [p.detach().clone() for p in parameters]


def test_model_steps_are_adam_on_the_clipped_gradient() -> None:
    """Take one step with a clipped gradient and one without; the encoder has 0.3 of the rate."""
    config = tiny_config(regression="mse", consistency_coef=20.0)
    agent = make_agent(config)
    ordinary = random_batch(config, agent.env)
    batches = [ordinary._replace(reward=1e4 * ordinary.reward), ordinary]
    start, steps, norms = snapshot(agent.model_params), [], []
    for batch in batches:
        noise = agent.train_noise.update(config.batch_size)
        loss = agent.model_loss(batch, noise)[0]
        steps.append(list(torch.autograd.grad(loss, agent.model_params)))
        metrics, _ = agent.update_on(batch, noise)
        norms.append(metrics["grad_norm"].item())
    assert norms[0] > 1000
    assert norms[1] < 20
    exact = math.sqrt(sum(g.double().square().sum().item() for g in steps[0]))
    assert norms[0] == pytest.approx(exact, rel=1e-4)  # the norm before clipping
    encoder = {id(p) for p in agent.model.encoder.parameters()}
    rates = [9e-5 if id(p) in encoder else 3e-4 for p in agent.model_params]
    ours = snapshot(agent.model_params)
    expected = plain_adam(start, steps, rates, 1e-8, clip=20.0)
    assert largest_difference(ours, expected) < 2e-6
    # Both mistakes would change the result.
    assert largest_difference(ours, plain_adam(start, steps, rates, 1e-8, clip=math.inf)) > 1e-4
    assert largest_difference(ours, plain_adam(start, steps, [3e-4] * 99, 1e-8, clip=20.0)) > 1e-4


def policy_step(agent: TDMPC2, latents: Tensor) -> tuple[list[Tensor], float]:
    """Take a policy step and return the raw gradient and the norm that the agent reports."""
    noise = agent.train_noise.update(latents.shape[1])
    loss = agent.policy_loss(latents, None, noise).loss
    gradient = list(torch.autograd.grad(loss, agent.policy_params))
    return gradient, agent.update_policy(latents, None, noise)["pi_grad_norm"].item()


def test_policy_steps_are_adam_on_the_clipped_gradient() -> None:
    """With a large entropy coefficient the gradient is clipped; in the next step it is not."""
    agent = make_agent()
    start, steps, norms = snapshot(agent.policy_params), [], []
    for entropy_coef in (100.0, 0.1):
        agent.config = tiny_config(entropy_coef=entropy_coef)
        raw, norm = policy_step(agent, torch.rand(4, 6, 16))
        steps.append(raw)
        norms.append(norm)
    assert norms[0] > 200
    assert norms[1] < 20
    rates = [3e-4] * len(start)
    ours = snapshot(agent.policy_params)
    assert largest_difference(ours, plain_adam(start, steps, rates, 1e-5, clip=20.0)) < 2e-6
    unclipped = plain_adam(start, steps, rates, 1e-5, clip=math.inf)
    assert largest_difference(ours, unclipped) > 1e-5


def test_policy_optimizer_has_an_epsilon_of_1e_5() -> None:
    """A different ε of Adam changes the result where gradients are about that small."""
    agent = make_agent(tiny_config(entropy_coef=0.0))
    agent.value_scale.fill_(1e5)
    start = snapshot(agent.policy_params)
    steps = [policy_step(agent, torch.rand(4, 6, 16))[0]]
    rates = [3e-4] * len(start)
    ours = snapshot(agent.policy_params)
    assert largest_difference(ours, plain_adam(start, steps, rates, 1e-5, clip=20.0)) < 1e-7
    assert largest_difference(ours, plain_adam(start, steps, rates, 1e-8, clip=20.0)) > 1e-4


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_learnt_entropy_coefficient_seeks_its_target(num_tasks: int) -> None:
    """The gradient of the loss is mean entropy + A, so α decreases if the entropy is too large."""
    dims = {"task_dim": 4} if num_tasks > 1 else {}
    config = tiny_config(entropy_tuning="target", entropy_form="exact", **dims)
    agent = make_agent(config, THREE_TASKS if num_tasks > 1 else env_spec())
    with torch.no_grad():
        agent.model.policy_log_alpha.fill_(math.log(0.1))
    task = torch.arange(6) % 3 if num_tasks > 1 else None
    latents, noise = torch.rand(4, 6, 16), agent.train_noise.update(6)
    outcome = agent.policy_loss(latents, task, noise)
    (slope,) = torch.autograd.grad(outcome.loss, agent.model.policy_log_alpha)
    sizes = torch.tensor(agent.env.action_dims, dtype=torch.float32)
    wanted = sizes[task].mean() if task is not None else sizes[0]
    entropy = outcome.metrics["pi_entropy_bonus"]
    assert slope.item() == pytest.approx((entropy + wanted).item(), rel=1e-5)
    assert outcome.metrics["pi_alpha"].item() == pytest.approx(0.1)
    # Q is not scaled; α multiplies the bonus.
    sample = agent.model.pi(latents, noise.policy, agent.model.context(task))
    q = agent.model.regression.decode(
        agent.model.q(
            latents,
            sample.action,
            agent.model.context(task),
            heads=noise.policy_heads,
        )
    ).mean(0)
    powers = 0.5 ** torch.arange(4)[:, None]
    expected = math.log(0.1) * slope - (powers * (q + 0.1 * sample.entropy_bonus)).mean()
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    before = agent.model.policy_log_alpha.item()
    agent.update_policy(latents, task, noise)
    assert math.copysign(1, before - agent.model.policy_log_alpha.item()) == slope.sign()


def test_a_learnt_entropy_coefficient_needs_the_exact_entropy() -> None:
    with pytest.raises(UserError, match="entropy_form=exact"):
        tiny_config(entropy_tuning="target")


def test_the_policy_step_touches_the_policy_only() -> None:
    agent = make_agent(tiny_config(task_dim=4), THREE_TASKS)
    agent.model.renormalize_task_embedding(torch.arange(3))
    before = {name: p.detach().clone() for name, p in agent.model.named_parameters()}
    task = torch.arange(6) % 3
    agent.update_policy(torch.rand(4, 6, 16), task, agent.train_noise.update(6))
    for name, parameter in agent.model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == name.startswith("policy."), name


def test_the_task_embedding_is_frozen_in_the_policy_loss_only() -> None:
    agent = make_agent(tiny_config(task_dim=4), THREE_TASKS)
    table, noise = agent.model.task_embedding, agent.train_noise.update(6)
    batch = random_batch(agent.config, THREE_TASKS)
    loss, latents, _, _ = agent.model_loss(batch, noise)
    assert torch.autograd.grad(loss, table)[0].abs().min() > 0
    loss = agent.policy_loss(latents, batch.task, noise).loss
    assert torch.autograd.grad(loss, table, allow_unused=True)[0] is None


def test_embeddings_of_other_tasks_stay_and_long_ones_are_projected() -> None:
    config = tiny_config(task_dim=4)
    agent = make_agent(config, THREE_TASKS)
    table = agent.model.task_embedding
    with torch.no_grad():
        table.fill_(2.5)  # norm 5
    batch = random_batch(config, THREE_TASKS)._replace(task=torch.tensor([0, 2] * 3))
    agent.update_on(batch, agent.train_noise.update(6))
    assert (table[1] == 2.5).all()
    # Norm 1, and then one Adam step of 3e-4 in each of four dimensions.
    assert (table[[0, 2]].norm(dim=1) - 1).abs().max() < 2.1 * 3e-4


def test_padded_action_dimensions_get_no_gradient() -> None:
    """A batch of tasks with one action dimension updates only one of the policy's three."""
    agent = make_agent(tiny_config(task_dim=4), THREE_TASKS)
    task = torch.ones(6, dtype=torch.long)
    loss = agent.policy_loss(torch.rand(4, 6, 16), task, agent.train_noise.update(6)).loss
    output = agent.model.policy[2]
    weight, bias = torch.autograd.grad(loss, (output.weight, output.bias))
    moved = [True, False, False, True, False, False]  # means, then log standard deviations
    assert (weight.abs().sum(1) > 0).tolist() == moved
    assert (bias != 0).tolist() == moved


@pytest.mark.parametrize("dropout_in", ["model_loss", "everywhere", "model_and_policy_loss"])
def test_dropout_reaches_the_losses_that_the_flag_names(dropout_in: str) -> None:
    """Compare each loss with dropout of 0.5 to the same noise without dropout factors."""
    config = tiny_config(dropout=0.5, dropout_in=dropout_in)
    agent = make_agent(config)
    batch, noise = random_batch(config, agent.env), agent.train_noise.update(6)
    context = agent.model.context(None)
    latents = torch.rand(4, 6, 16)

    def outcomes(noise: UpdateNoise) -> list[Tensor]:
        target = td_target(agent.model, batch, context, agent.discounts, noise)[1]
        policy = agent.policy_loss(latents, None, noise).loss
        without_target = noise._replace(target_dropout=None)
        return [target, agent.model_loss(batch, without_target)[2]["value_loss"], policy]

    plain = noise._replace(model_dropout=None, target_dropout=None, policy_dropout=None)
    pairs = zip(outcomes(noise), outcomes(plain), strict=True)
    changed = [not torch.equal(dropped, kept) for dropped, kept in pairs]
    assert changed == [dropout_in == "everywhere", True, dropout_in != "model_loss"]
