"""The formulations for GPUs, computed on the CPU, give the same numbers as those for CPUs.

Golden tests and tests of seed batches are repeated with them, with the same tolerances.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.numerics.optim import clip_divisor, descend
from tdmpc2.elites import choose, refit
from tdmpc2.noise import NoiseSource
from tdmpc2.planner import warm_start
from tdmpc2.sharded_update import SplitUpdate
from tdmpc2.task_context import NO_TASK
from tests.common.test_recorded_steps import CASES, assert_same, live, make_agent, record
from tests.helpers import (
    THREE_TASKS,
    env_spec,
    filled_replay,
    random_batch,
    randomize_,
    tiny_config,
)
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


class Overwriting(Compiler):
    """Compiles nothing; a step overwrites the results of the one before, as CUDA graphs may do."""

    def __init__(self) -> None:
        super().__init__(torch.device("cuda"))
        self.enabled, self.results = True, list[torch.Tensor]()

    def compile(self, function: Callable[..., Any], *, piece: bool = False) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            given = {id(one) for one in tree_leaves((args, kwargs))}
            self.results += [
                one
                for one in tree_leaves(result)
                if isinstance(one, torch.Tensor) and id(one) not in given and not one.requires_grad
            ]
            return result

        return function if piece else call

    def begin_step(self) -> None:
        for one in self.results:
            if one.is_floating_point():
                one.fill_(torch.nan)
        self.results.clear()


@pytest.mark.parametrize("split", [False, True])
def test_metrics_outlive_the_memory_of_graphs(split: bool) -> None:
    """Agents of several tasks have a CUDA graph for each function; nothing in it is kept."""
    agent = agents_of("three tasks")[0]
    compiler = Overwriting()
    acceleration.replace_functions(agent.accelerable(), compiler)
    for seed in range(2):
        batch = random_batch(agent.config, agent.env, seed=seed)
        noise = agent.train_noise.update(agent.config.batch_size)
        updated = SplitUpdate(agent, World(), 2).update_on if split else agent.update_on
        metrics = updated(batch, noise)
        assert compiler.results
        compiler.begin_step()
        assert all(torch.isfinite(one).all() for one in tree_leaves(metrics) if one is not None)
    assert all(torch.isfinite(parameter).all() for parameter in agent.model.parameters())


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


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=1.0),
    "fused Adam": lambda params: torch.optim.Adam(params, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clipping_equals_that_of_pytorch(
    scale: float, make_optimizer: Callable[[Any], torch.optim.Optimizer]
) -> None:
    params = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    gradients = tuple(scale * torch.randn_like(p) for p in params)
    others = copy.deepcopy(params)
    found = []
    for own, forms in ((params, contextlib.nullcontext()), (others, cpu_forms())):
        with forms:
            copies = tuple(gradient.clone() for gradient in gradients)
            norm = descend(make_optimizer(own), own, copies, max_norm=20.0)
            found.append((norm, [p.grad for p in own]))
    assert_close(found[0], found[1])  # the fused Adam divides gradients in place
    assert_close(params, others)
    norm, divisor = clip_divisor([torch.tensor(3.0), torch.tensor(4.0)], 2.5)
    assert norm.item() == 5.0
    assert divisor.item() == pytest.approx(2.0, abs=1e-6)
    assert clip_divisor([torch.tensor(3.0), torch.tensor(4.0)], 6.0)[1].item() == 1.0


@pytest.mark.parametrize("model", ["paper", "three tasks"])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_rollout_is_several_calls_of_the_dynamics(model: str, gradients: bool) -> None:
    agent, env = agents_of(model)[0].model, MODELS[model][1]
    context = agent.context(torch.tensor([0, 1, 2, 0])) if agent.multitask else NO_TASK
    latent, actions = torch.randn(4, agent.config.latent_dim), torch.randn(3, 4, env.action_dim)
    with torch.set_grad_enabled(gradients):
        latents = agent.rollout(latent, actions, context)
        known = agent.rollout(latent, actions, context, agent.first_product(latent))
    expected = [latent]
    for action in actions:
        expected.append(agent.next(expected[-1], action, context))
    assert_close(latents, expected)
    assert_close(known, expected)


def test_the_weights_of_an_iteration_are_those_of_its_heads() -> None:
    model = agents_of("paper")[0].model
    heads = torch.tensor([[0, 2], [1, 0], [2, 1]])
    every = model.joint_weights(3, heads)
    assert every is not None
    for i, pair in enumerate(heads):
        one = model.joint_weights(3, pair)
        torch.testing.assert_close(every.iteration(i), one, rtol=0, atol=0)


def test_elites_are_refitted_and_chosen_as_on_cpus() -> None:
    config, generator = tiny_config(num_elites=5, temperature=0.7), torch.Generator().manual_seed(0)
    actions = torch.rand(3, 4, 16, 2, generator=generator) * 2 - 1
    value, mean = torch.randn(4, 16, generator=generator), torch.zeros(3, 4, 2)
    noise = torch.empty(4, 5).exponential_(generator=generator)
    found = refit(config, actions, value, mean, torch.tensor(0.05))
    with cpu_forms():
        expected = refit(config, actions, value, mean, torch.tensor(0.05))
    assert_close(found[:2], expected[:2])
    assert_close(choose(found, noise, None), choose(expected, noise, None))


@pytest.mark.parametrize("first", [[False, False], [True, False], [True, True]])
def test_warm_starts(first: list[bool]) -> None:
    previous = torch.arange(12.0).view(3, 2, 2) + 1
    start = warm_start(previous, np.array(first), 3, 2, torch.device("cpu"))
    for b, new in enumerate(first):
        shifted = torch.zeros(3, 2) if new else torch.cat([previous[1:, b], torch.zeros(1, 2)])
        assert torch.equal(start[:, b], shifted)


def test_updates_gather_their_batches_themselves() -> None:
    """The same batches as those that are sampled before the update."""
    agents = [make_agent() for _ in range(2)]
    replays = [filled_replay(agent.config, agent.env) for agent in agents]
    agents[1]._can_gather = lambda _replay: False  # type: ignore[method-assign]
    metrics = [a.update(replay) for a, replay in zip(agents, replays, strict=True)]
    assert_same(metrics[0], metrics[1])
    assert_same(agents[0].model.state_dict(), agents[1].model.state_dict())


def test_acting_needs_no_planning_forms() -> None:
    agent = TDMPC2(tiny_config(planning=False), env_spec(), seed=0)
    action = agent.act(np.zeros((1, 5), np.float32), first=np.array([True]), explore=True)
    assert action.shape == (1, 2)
