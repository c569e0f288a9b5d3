"""The formulations for GPUs, computed on the CPU, give the same numbers as those for CPUs.

Golden tests and tests of seed batches are repeated with them, with the same tolerances.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.optim import clip_factor, descend
from tdmpc2.noise import NoiseSource
from tests.common.test_recorded_steps import CASES, assert_same, live, make_agent, record
from tests.helpers import THREE_TASKS, env_spec, random_batch, randomize_, tiny_config
from tests.tape import Tape
from tests.test_noise import (
    test_dropout_factors,
    test_pairs_of_q_functions,
    test_shapes_of_the_noise,
)
from tests.test_parity import golden, test_plan, test_updates, test_value_of_action_sequences
from tests.test_planner import (
    test_episodic_value_in_two_steps,
    test_nan_values_become_zero,
    test_value_averages_the_chosen_heads,
    test_value_by_hand,
)
from tests.test_seed_batch import (
    VARIANTS,
    test_a_batched_update_equals_the_single_one,
    test_batched_actions_equal_the_single_ones,
    test_pixels,
)

REPEATED = (
    *(golden, test_plan, test_updates, test_value_of_action_sequences),
    *(test_dropout_factors, test_pairs_of_q_functions, test_shapes_of_the_noise),
    *(test_episodic_value_in_two_steps, test_nan_values_become_zero),
    *(test_value_averages_the_chosen_heads, test_value_by_hand, test_pixels),
    *(test_a_batched_update_equals_the_single_one, test_batched_actions_equal_the_single_ones),
)
MODELS: dict[str, tuple[dict[str, Any], Any]] = {
    **{name: (overrides, env_spec()) for name, overrides in VARIANTS.items()},
    "dropout everywhere": ({"dropout": 0.2, "dropout_in": "everywhere", "num_q": 5}, env_spec()),
    "layernorm": ({"latent_norm": "layernorm", "simnorm_tau": 0.5}, env_spec()),
    "episodic": ({}, env_spec(episodic=True)),
    "three tasks": ({"task_dim": 4}, THREE_TASKS),
}


@pytest.fixture(autouse=True)
def _gpu_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_forms, "wanted", lambda _device: True)


@contextlib.contextmanager
def cpu_forms() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_forms, "wanted", lambda _device: False)
        yield


def agents_of(model: str) -> tuple[TDMPC2, TDMPC2]:
    """Return two agents in the same state."""
    overrides, env = MODELS[model]
    agents = [TDMPC2(tiny_config(**overrides), env, seed=0) for _ in range(2)]
    for agent in agents:
        randomize_(agent.model, std=0.1)
    return agents[0], agents[1]


def assert_close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_updates_equal_those_of_cpus(model: str) -> None:
    ours, theirs = agents_of(model)
    batch = random_batch(ours.config, ours.env)
    noise = ours.train_noise.update(ours.config.batch_size)
    found = ours.update_on(batch, noise)
    with cpu_forms():
        expected = theirs.update_on(batch, noise)
    assert_close(found, expected)
    assert_close(ours.model.state_dict(), theirs.model.state_dict())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("explore", [True, False])
def test_plans_equal_those_of_cpus(model: str, explore: bool) -> None:
    ours, theirs = agents_of(model)
    obs = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    task = torch.tensor([0, 1]) if ours.model.multitask else None
    noise = ours.train_noise.plan(2, explore=explore)
    mean = torch.zeros(ours.config.horizon, 2, ours.env.action_dim)

    def planned(agent: TDMPC2) -> Any:
        context, discount = agent.model.context(task), agent.discount(task, 2)
        args = (agent.config, agent.model, obs, context, discount, mean, noise)
        return agent.functions.plan(*args, min_std=0.05)

    found = planned(ours)
    with cpu_forms():
        assert_close(tuple(found), tuple(planned(theirs)))


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_recorded_steps_equal_plain_ones(overrides: dict[str, Any]) -> None:
    """Recorded steps read no value to the host, and repeat the same bits with new noise."""
    tapes: list[Tape] = []
    recorded = make_agent(**overrides)
    record(recorded, tapes)
    assert_same(live(recorded), live(make_agent(**overrides)))
    assert all(not tape.fresh for tape in tapes)


def test_normals_are_pieces_of_one_sample() -> None:
    source = NoiseSource(tiny_config(), 2, False, torch.Generator().manual_seed(0))
    whole = source.normal(8 + 4 + 12)
    source.generator.manual_seed(0)
    a, b, c = source.normals((2, 3), (4,), (3, 3))
    assert torch.equal(a, whole[:6].view(2, 3))
    assert torch.equal(b, whole[8:12])
    assert torch.equal(c, whole[12:21].view(3, 3))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clipping_equals_that_of_pytorch(scale: float) -> None:
    params = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    gradients = tuple(scale * torch.randn_like(p) for p in params)
    others = copy.deepcopy(params)
    norms = []
    for own, forms in ((params, contextlib.nullcontext()), (others, cpu_forms())):
        with forms:
            copies = tuple(gradient.clone() for gradient in gradients)
            norms.append(descend(torch.optim.SGD(own, lr=1.0), own, copies, max_norm=20.0))
    assert_close(norms[0], norms[1])
    assert_close(params, others)
    norm, factor = clip_factor([torch.tensor(3.0), torch.tensor(4.0)], 2.5)
    assert norm.item() == 5.0
    assert factor.item() == pytest.approx(0.5, abs=1e-6)


def test_acting_needs_no_planning_forms() -> None:
    agent = TDMPC2(tiny_config(planning=False), env_spec(), seed=0)
    action = agent.act(np.zeros((1, 5), np.float32), first=np.array([True]), explore=True)
    assert action.shape == (1, 2)
