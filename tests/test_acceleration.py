"""Acceleration: what it replaces, and agents that stay plain without it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdmpc2 import acceleration, kernels
from tdmpc2.common.interfaces import Accelerable, FunctionSlot
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.kernels.blocked import BlockedWeights
from tdmpc2.kernels.layers import NATIVE, NativeNormedLinear, NativeQEnsemble
from tdmpc2.layers import NormedLinear
from tdmpc2.runners.registry import METHODS, agent_class
from tdmpc2.seed_batch import SeedBatch
from tests.baselines.agents import dreamerv3
from tests.helpers import env_spec, make_agent, tiny_config

CPU = torch.device("cpu")
WIDE = {"mlp_dim": 32, "latent_dim": 32, "num_samples": 256, "num_pi_samples": 24}


def is_compiling(x: Tensor) -> tuple[Tensor, bool]:
    return x, torch.compiler.is_compiling()


class Owner:
    """An agent with one function."""

    def __init__(self, compiled_on: tuple[str, ...]) -> None:
        self.compiled_on = compiled_on
        self.function = is_compiling

    def accelerable(self) -> Accelerable:
        slots = [FunctionSlot(self, "function")]
        return Accelerable(CPU, compiled=slots, protected=slots, compiled_on=self.compiled_on)


def slots(accelerable: Accelerable) -> list[FunctionSlot]:
    planning = [] if accelerable.planning is None else [accelerable.planning.function]
    kinds = (accelerable.compiled, accelerable.pieces, accelerable.protected, planning)
    return [slot for kind in kinds for slot in kind]


@pytest.mark.parametrize("method", METHODS)
def test_every_agent_declares_functions_that_exist(method: str) -> None:
    cls = agent_class(method)
    accelerable = cls(cls.config_class.make(), env_spec(), seed=0).accelerable()
    assert slots(accelerable)
    for slot in slots(accelerable):
        assert callable(getattr(slot.owner, slot.name))
    layers = [type(m) for network in accelerable.networks for m in network.modules()]
    native = [layer for layer in layers if layer.__module__.endswith("kernels.layers")]
    assert native == []
    if accelerable.planning is not None:
        parameters = {p for network in accelerable.networks for p in network.parameters()}
        used = {p for network in accelerable.planning.networks for p in network.parameters()}
        assert used < parameters


@pytest.mark.parametrize("compiled_on", [("cpu",), ("cuda",)])
def test_functions_are_compiled_where_the_agent_wants_it(compiled_on: tuple[str, ...]) -> None:
    agent = Owner(compiled_on)
    assert agent.function(torch.ones(1))[1] is False
    compiler = acceleration.install(agent)
    assert compiler.enabled is agent.function(torch.ones(1))[1] is (compiled_on == ("cpu",))


def test_a_failure_is_reported_and_the_plain_function_remains() -> None:
    """The native layers remain too, but are plain outside of compiled functions."""
    agent, told = make_agent(tiny_config(**WIDE)), []
    plain = copy.deepcopy(agent)

    def refuse(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            raise ValueError("no such thing")
        return iterate(*args)

    iterate, agent.functions.iterate = agent.functions.iterate, refuse
    compiler = acceleration.install(agent, lambda: told.append(True))
    obs, first = np.ones((1, 5), np.float32), np.array([True])
    with pytest.warns(RuntimeWarning, match=r"torch.compile failed.*compile=false"):
        action = agent.act(obs, first=first, explore=False)
    assert (compiler.enabled, told) == (False, [True])
    np.testing.assert_array_equal(action, plain.act(obs, first=first, explore=False))


def test_a_failure_in_a_decision_of_dreamerv3_is_no_end() -> None:
    """It decides before its first update."""
    agent = dreamerv3()[0]
    plain = copy.deepcopy(agent)

    def refuse(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            raise ValueError("no such thing")
        return gate(*args)

    gate, agent.model.rssm.gate = agent.model.rssm.gate, refuse
    compiler = Compiler(CPU)
    acceleration.replace_functions(agent.accelerable(), compiler)
    compiler.switch_on()
    obs, first = np.ones((1, *agent.env.obs_shape), np.float32), np.array([True])
    with pytest.warns(RuntimeWarning, match=r"torch.compile failed"):
        action = agent.act(obs, first=first, explore=False)
    assert not compiler.enabled
    np.testing.assert_array_equal(action, plain.act(obs, first=first, explore=False))


def test_layers_without_a_kernel_stay() -> None:
    supported = [NormedLinear(5, 32), NormedLinear(5, 32, activation="simnorm")]
    others = [
        NormedLinear(5, 17),
        NormedLinear(5, 32, norm=False),
        NormedLinear(5, 32, activation="none"),
        NormedLinear(5, 32, activation="simnorm", simnorm_dim=4),
    ]
    assert NATIVE.install([nn.ModuleList([*supported, *others])], torch.device("cpu"))
    assert [type(layer) for layer in supported] == [NativeNormedLinear] * 2
    assert [type(layer) for layer in others] == [NormedLinear] * 4


def test_the_native_layers_of_an_agent() -> None:
    """Parameters, their names and values outside of compiled functions stay the same."""
    agent = make_agent(tiny_config(**WIDE))
    model, plain = agent.model, copy.deepcopy(agent.model)
    parameters = dict(model.named_parameters())
    acceleration.install(agent)
    assert all(parameters[name] is p for name, p in model.named_parameters())
    assert type(model.q_functions) is type(model.target_q_functions) is NativeQEnsemble
    latent, action = torch.randn(4, 32), torch.zeros(4, 2)
    assert torch.equal(model.next(latent, action), plain.next(latent, action))
    assert torch.equal(model.q(latent, action), plain.q(latent, action))
    again = copy.deepcopy(model)  # has weights of its own
    with torch.no_grad():
        again.dynamics[0].linear.weight.zero_()
    assert torch.equal(model.next(latent, action), plain.next(latent, action))
    assert not torch.equal(again.next(latent, action), plain.next(latent, action))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_planning_in_fp32_uses_blocked_weights(precision: str) -> None:
    """They are marked as stale after each step of the optimizers."""
    kernels.load()
    if not BlockedWeights.possible():
        pytest.skip("torch's library of products takes no blocked weights here")
    agent = make_agent(tiny_config(**WIDE, precision=precision))
    layers = [agent.model.dynamics[0].linear, agent.model.q_functions.linear2]
    seen: list[bool] = []

    def plan(*args: Any, **kwargs: Any) -> None:
        seen.extend(getattr(layer, "blocked", None) is not None for layer in layers)

    agent.functions.plan = plan
    acceleration.install(agent)
    agent.functions.plan()
    assert seen == [precision == "fp32"] * 2
    assert all(getattr(layer, "blocked", None) is None for layer in layers)


def test_a_seed_batch_vectorizes_native_layers_of_its_own() -> None:
    """Those of its agents stay plain, and no operation is in place."""
    agents = [make_agent(tiny_config(**WIDE), seed=seed) for seed in range(2)]
    batch = SeedBatch(agents, [True, True])
    acceleration.install(batch)
    (template,) = batch.accelerable().networks
    native = [m for m in template.modules() if isinstance(m, NativeNormedLinear | NativeQEnsemble)]
    assert native
    assert not any(layer.in_place for layer in native)
    plain = (module for agent in agents for module in agent.model.modules())
    assert not any(isinstance(m, NativeNormedLinear | NativeQEnsemble) for m in plain)
