"""The state of methods from outside the suite: nothing is missing, and it fits when restored."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tdmpc2.common.numerics.optim import Adam, Draws
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.own_states import check_state
from tdmpc2.runners.registry import METHODS, agent_class
from tests.test_own_method_faults import Linear, made


def with_attributes(attributes: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return an `__init__` that also sets these attributes of the agent."""

    def init(self: Any, config: Any, env: Any, **how: Any) -> None:
        Linear.__init__(self, config, env, **how)
        vars(self).update(attributes(self))

    return {"__init__": init}


def learned(size: int = 1) -> torch.Tensor:
    return torch.zeros(size, requires_grad=True)


class Net(nn.Linear):
    """A module with an attribute that no state of modules contains."""

    def __init__(self, attribute: Any) -> None:
        super().__init__(2, 2)
        self.attribute = attribute


MISSING: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "modules": (
        lambda agent: {"critics": [nn.Linear(2, 2)]},
        r"critics \(list with Linear\); keep modules and optimizers as attributes",
    ),
    "optimizers": (
        lambda agent: {"all": {"actor": Adam(agent.policy.parameters())}},
        r"all \(dict with Adam\); keep",
    ),
    "a schedule": (
        lambda agent: {
            "decay": torch.optim.lr_scheduler.StepLR(Adam([learned()]), 10),
        },
        r"decay \(StepLR\); .* in a state_dict of your own",
    ),
    "a learned tensor": (
        lambda agent: {"alpha": learned()},
        r"alpha \(Tensor\); name it in state_fields",
    ),
    "learned tensors": (lambda agent: {"x": {"a": (1, learned())}}, r"x \(dict with Tensor\)"),
    "an object": (
        lambda agent: {"nets": SimpleNamespace(actor=nn.Linear(2, 2))},
        r"nets \(SimpleNamespace with Linear\); keep",
    ),
    "a queue": (lambda agent: {"old": deque([nn.Linear(2, 2)])}, r"old \(deque with Linear\)"),
    "layers": (lambda agent: {"net": Net([nn.Linear(2, 2)])}, r"net \(Net with Linear\)"),
    "a generator": (lambda agent: {"net": Net(torch.Generator())}, r"net \(Net with Generator\)"),
    "noise": (lambda agent: {"rng": [Draws(0, torch.device("cpu"))]}, r"rng \(list with Draws\)"),
    **{
        type(rng).__module__: (
            lambda agent, rng=rng: {"rng": rng},
            r"rng \(\w+\); take noise from self\.train_noise",
        )
        for rng in (torch.Generator(), np.random.default_rng(0), random.Random(0))
    },
}


@pytest.mark.parametrize("what", MISSING)
def test_what_a_checkpoint_would_not_contain_is_refused(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes, message = MISSING[what]
    begin = "^method=own_faults:Method: checkpoints would not contain "
    with pytest.raises(UserError, match=begin + message):
        made(monkeypatch, with_attributes(attributes))
    made(monkeypatch, with_attributes(attributes), to_train=False)  # for older checkpoints


def test_what_a_checkpoint_contains_may_also_be_in_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attributes(agent: Any) -> dict[str, Any]:
        alpha = learned()
        optimizer = Adam([alpha])
        return {
            "parameters": [*agent.policy.parameters(), alpha],
            "alpha": alpha,
            "optimizer": optimizer,
            "all": {"alpha": optimizer},
            "layers": (agent.policy,),
            "generator": agent.train_noise.generator,
            "planner": SimpleNamespace(agent=agent, networks=deque([agent.policy])),
            "kind": nn.Linear,
            "sizes": [3, torch.zeros(2)],
        }

    made(monkeypatch, {**with_attributes(attributes), "state_fields": ("alpha",)})


@pytest.mark.parametrize("method", METHODS)
def test_subclasses_of_methods_of_the_suite_are_checked(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their inherited `state_dict` contains what the method of the suite has itself."""
    agent = made(monkeypatch, {"count": 0}, agent_class(method))
    for added in (nn.Linear(2, 2), Adam([learned()]), torch.Generator()):
        agent.extra = added
        with pytest.raises(UserError, match=r"extra \(\w+\); save it in a state_dict and load_"):
            check_state("method=own", agent)
    agent.state_fields = ("count",)
    with pytest.raises(UserError, match=r"does not contain state_fields \(count\)"):
        check_state("method=own", agent)


def test_a_state_dict_of_ones_own_may_contain_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"state_dict": lambda self: {"critic": self.critics[0].state_dict()}}
    made(monkeypatch, with_attributes(lambda agent: {"critics": [nn.Linear(2, 2)]}) | own)


def test_a_state_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint with it would end the run as diverged."""
    low = {"low": torch.full((2,), torch.inf), "state_fields": ("low",)}
    with pytest.raises(UserError, match="its state has low, a tensor of which is not finite"):
        made(monkeypatch, low)
    made(monkeypatch, {**low, "low": float("inf")})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"policy": nn.Linear(5, 3)}, "RuntimeError: .*size mismatch for weight"),
        ({"critic": nn.Linear(5, 2)}, "only one of them has critic"),
        ({"alpha": learned(3)}, r"ValueError: a learned tensor was \[[13]\] of torch.float32, not"),
    ],
)
def test_a_checkpoint_of_a_class_that_has_changed_is_refused(
    attributes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = {"state_fields": ("alpha",)}
    before = made(monkeypatch, with_attributes(lambda agent: {"alpha": learned()}) | alpha)
    after = made(
        monkeypatch, with_attributes(lambda agent: {"alpha": learned(), **attributes}) | alpha
    )
    before.load_state_dict(before.state_dict())
    for agent, other in ((before, after), (after, before)):
        with pytest.raises(UserError, match=r"does not fit the class .*restore its code") as error:
            agent.load_state_dict(other.state_dict())
        assert error.match(message)


def test_modules_that_are_created_after_the_start_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new agent does not have them, so that the checkpoint would fit none."""
    agent = made(monkeypatch, {})
    agent.state_dict()
    agent.optimizer = Adam(agent.policy.parameters())
    with pytest.raises(UserError, match=r"its state has changed \(optimizer\).* in __init__"):
        agent.state_dict()
