"""Faults of methods from outside the suite: one line that names the method, before data is lost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import make_dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import Counters
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig
from tdmpc2.runners.registry import agent_class, make_agent, require_multitask, why_alone
from tdmpc2.runners.specs import make_spec
from tests.helpers import env_spec

ENV = env_spec()  # 5 observations, 2 actions
OBS, FIRST = np.zeros((3, 5), np.float32), np.ones(3, dtype=bool)


class Linear(BaseAgent):
    """A method without a fault."""

    def __init__(
        self, config: Any, env: Any, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(config, env, seed=seed, device=device)
        self.policy = nn.Linear(env.obs_shape[0], env.action_dim)

    def act(self, obs: np.ndarray, **how: Any) -> np.ndarray:
        return np.zeros((len(obs), self.env.action_dim), np.float32)

    def update(self, replay: Any) -> dict[str, Any]:
        return {"loss": torch.zeros(())}


def made(
    monkeypatch: pytest.MonkeyPatch, members: Mapping[str, Any], base: Any = Linear, **how: Any
) -> Any:
    """Return an agent of a method with these members, made as the suite makes it."""
    found = ModuleType("own_faults")
    found.Method = type("Method", (base,), dict(members))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_faults", found)
    agent_class.cache_clear()
    spec = make_spec("own_faults:Method", "toy-pointmass", 1)
    return make_agent(spec, ENV, torch.device("cpu"), **how)


def test_a_method_without_a_fault_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = made(monkeypatch, {"__doc__": "Own."})
    assert isinstance(agent, Linear)
    assert (type(agent).__name__, type(agent).__doc__) == ("Method", "Own.")
    assert agent.act(OBS, first=FIRST, explore=True).shape == (3, 2)
    assert agent.update(None)["loss"] == 0
    assert agent.updates_due("decision", Counters(2000, 0, 1)) == 1


def test_a_subclass_of_a_method_of_the_suite_is_what_several_seeds_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The seed batch and the divided updates of the suite would not call its functions."""
    spec = make_spec("own_faults:Method", "toy-pointmass", 1)
    agent = made(monkeypatch, {"update": lambda self, replay: {}}, TDMPC2)
    assert why_alone(spec) == (
        "method=own_faults:Method: has no seed batches; train its seeds one by one with seed="
    )
    assert not agent.micro_batches
    with pytest.raises(UserError, match="learns one task at a time"):
        require_multitask(spec.method)
    made(monkeypatch, {"seed_batch_class": "own:Batch"}, TDMPC2)
    assert why_alone(spec) is None


class NoUpdate(BaseAgent):
    """A method that lacks `act` and `update`."""


IN_THE_CLASS = {
    "abstract": ({}, NoUpdate, "Method has no act and no update"),
    "another act": ({"act": lambda self, obs: obs}, Linear, r"act\(obs, first=first, explore"),
    "another init": ({"__init__": lambda self, config: None}, Linear, r"__init__\(config, env, "),
    "update of two": ({"update": lambda self, a, b: {}}, Linear, r"update\(replay\) cannot be"),
    "another config": ({"config_class": dict}, Linear, "its config_class is <class 'dict'>"),
    "no base": (
        {"config_class": make_dataclass("Config", [], namespace={"make": None}, frozen=True)},
        Linear,
        "its config_class is .*; it must be a subclass of",
    ),
    **{
        kind: (
            {"config_class": make_dataclass("Config", [field], bases=(BaseConfig,), frozen=True)},
            Linear,
            message,
        )
        for kind, field, message in (
            ("a tuple", ("hidden", tuple[int, ...], (256, 256)), "config field 'hidden' has the"),
            ("two types", ("width", int | str, 8), r"config field 'width' has the type int \| str"),
            ("numbers", ("n", Literal[1, 2], 1), r"config field 'n' has the type .*Literal\[1, 2"),
            ("a name", ("lr", "flaot", 0.1), "the types of its config .*'flaot' is not defined"),
        )
    },
}


@pytest.mark.parametrize("fault", IN_THE_CLASS)
def test_a_fault_of_the_class_is_found_before_the_run(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, base, message = IN_THE_CLASS[fault]
    with pytest.raises(UserError, match=f"^method=own_faults:Method: {message}"):
        made(monkeypatch, members, base)


IN_THE_AGENT = {
    "no super": (
        {"__init__": lambda self, config, env, **_: None},
        r"__init__ must call super\(\)",
    ),
    "num_envs": ({"num_envs": "two"}, "num_envs is 'two'; it must be an integer ≥ 1"),
    "replay_length": ({"replay_length": 0}, "replay_length is 0"),
    "visibility": ({"replay_visibility": "now"}, "replay_visibility is 'now'; it must be one of"),
    "one priority": ({"replay_priorities": (0.6,)}, r"replay_priorities is \(0\.6,\)"),
    "priorities": ({"replay_priorities": ("a", "b")}, "replay_priorities is .* two numbers"),
    "no such field": ({"state_fields": ("steps",)}, "state_fields names steps"),
    "a generator": (
        {"state_fields": ("rng",), "rng": np.random.default_rng(0)},
        "its state has rng, of type Generator, which a checkpoint cannot hold",
    ),
    "an array": ({"state_fields": ("x",), "x": [np.zeros(3)]}, "its state has x, of type list"),
    "no state": ({"state_dict": lambda self: None}, "state_dict returned no dict"),
}


@pytest.mark.parametrize("fault", IN_THE_AGENT)
def test_a_fault_of_the_agent_is_found_before_its_first_decision(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, message = IN_THE_AGENT[fault]
    with pytest.raises(UserError, match=f"^method=own_faults:Method: .*{message}"):
        made(monkeypatch, members)


def test_states_that_a_checkpoint_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"a": 3, "b": torch.zeros(2), "c": {"x": [1, (2.0, None)]}, "d": "text"}
    made(monkeypatch, {**members, "state_fields": tuple(members)})


def test_tensors_are_restored_in_place_and_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ("alpha", "means", "later")
    agent = made(monkeypatch, {"state_fields": fields, **dict.fromkeys(fields)})
    agent.alpha = torch.zeros(1, requires_grad=True)
    agent.means = {"obs": [torch.zeros(2), 3]}
    alpha, mean = agent.alpha, agent.means["obs"][0]
    agent.device = torch.device("meta")  # stands for a GPU
    saved = {
        "alpha": torch.ones(1),
        "means": {"obs": [torch.ones(2), 4]},
        "later": (torch.ones(3),),
    }
    agent.load_state_dict({**agent.state_dict(), **saved})
    assert agent.alpha is alpha
    assert (alpha.item(), alpha.requires_grad) == (1, True)
    assert agent.means["obs"][0] is mean
    assert (mean.tolist(), agent.means["obs"][1]) == ([1, 1], 4)
    assert agent.later[0].device == agent.device


@pytest.mark.parametrize(
    "actions",
    [
        np.zeros((3, 2)),
        torch.zeros(3, 2, dtype=torch.float64),
        torch.zeros(3, 2, dtype=torch.bfloat16),
        [[0, 0.5]] * 3,
    ],
)
def test_actions_are_converted(actions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = made(monkeypatch, {"act": lambda self, obs, **_: actions})
    got = agent.act(OBS, first=FIRST, explore=True)
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == ((3, 2), np.float32)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (None, "act returned NoneType; it must return an array of shape"),
        (np.zeros(2), r"act returned ndarray of shape \(2,\) and type float64"),
        (np.zeros((1, 2)), r"act returned ndarray of shape \(1, 2\)"),
        (np.full((3, 2), "a"), "act returned ndarray .* type <U1"),
        (np.full((3, 2), -1.5), r"act returned an action of 1\.5; clamp"),
    ],
)
def test_other_actions_are_refused(
    actions: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = made(monkeypatch, {"act": lambda self, obs, **_: actions})
    with pytest.raises(UserError, match=f"^method=own_faults:Method: {message}"):
        agent.act(OBS, first=FIRST, explore=True)


def test_rounding_is_no_fault_and_nan_is_for_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = np.array([[1 + 1e-6, -1 - 1e-6], [np.nan, 0], [np.inf, 0]], np.float32)
    agent = made(monkeypatch, {"act": lambda self, obs, **_: actions})
    got = agent.act(OBS, first=FIRST, explore=True)
    assert got[0].tolist() == [1, -1]
    assert not np.isfinite(got[1:, 0]).any()


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor([0.5]), torch.tensor(0.5, requires_grad=True)]
)
def test_metrics_are_converted(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = made(monkeypatch, {"update": lambda self, replay: {"loss/all": value}})
    got = agent.update(None)["loss/all"]
    assert (got.shape, got.dtype, got.item(), got.requires_grad) == ((), torch.float32, 0.5, False)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (None, "update returned NoneType; it must return its metrics"),
        ({"loss": torch.zeros(3)}, r"metric loss is Tensor of shape \(3,\)"),
        ({"loss": "x"}, "metric loss is str; it must be one number"),
        ({"a,b": 1.0}, "metric 'a,b': must be named"),
        ({"a\nb": 1.0}, r"metric 'a.+b': must be named"),
        ({3: 1.0}, "metric 3: must be named"),
    ],
)
def test_other_metrics_are_refused(
    metrics: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = made(monkeypatch, {"update": lambda self, replay: metrics})
    with pytest.raises(UserError, match=f"^method=own_faults:Method: {message}"):
        agent.update(None)


NUMBERS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "updates_due": (("decision", Counters(2000, 0, 1)), (None, -1, 0.5)),
    "num_parameters": ((), ("many", -1, 0.5)),
    "updates_per_decision": ((BaseConfig(),), ("x", -2, float("nan"), None)),
    "gflop": ((BaseConfig(), 5, 2), (3, {"plans": 1}, {"plan": 1.0}, {"update": -1.0})),
}


@pytest.mark.parametrize(
    ("name", "returned"), [(name, x) for name, (_, bad) in NUMBERS.items() for x in bad]
)
def test_numbers_are_checked(name: str, returned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = made(monkeypatch, {name: lambda *_: returned})
    with pytest.raises(UserError, match=f"^method=own_faults:Method: {name} .*must return"):
        getattr(agent, name)(*NUMBERS[name][0])


def test_updates_within_episodes_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"updates_due": lambda *_: 2, "updates_within_episodes": False}
    agent, counters = made(monkeypatch, members), Counters(2000, 0, 1)
    assert agent.updates_due("episode_end", counters) == 2
    with pytest.raises(UserError, match="updates_due returned 2 within an episode, but"):
        agent.updates_due("decision", counters)


def test_the_work_of_a_call_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for work in ({"plan": 1.5, "update": 2}, {"update": 0.0}, None):
        agent = made(monkeypatch, {"gflop": lambda *_, work=work: work})
        assert agent.gflop(BaseConfig(), 5, 2) == work


def test_settings_of_ones_own_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch, {}).config == BaseConfig()
