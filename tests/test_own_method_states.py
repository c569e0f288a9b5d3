"""The state of methods from outside the suite: nothing is missing, and it fits when restored."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tdmpc2.common.numerics.optim import Draws
from tdmpc2.common.system.errors import UserError
from tests.test_own_method_faults import Linear, made


def with_attributes(attributes: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return an `__init__` that also sets these attributes of the agent."""

    def init(self: Any, config: Any, env: Any, **how: Any) -> None:
        Linear.__init__(self, config, env, **how)
        vars(self).update(attributes(self))

    return {"__init__": init}


def learned() -> torch.Tensor:
    return torch.zeros(1, requires_grad=True)


MISSING: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "modules": (
        lambda agent: {"critics": [nn.Linear(2, 2)]},
        r"critics \(list with Linear\); keep modules and optimizers as attributes",
    ),
    "optimizers": (
        lambda agent: {"all": {"actor": torch.optim.Adam(agent.policy.parameters())}},
        r"all \(dict with Adam\); keep",
    ),
    "a schedule": (
        lambda agent: {
            "decay": torch.optim.lr_scheduler.StepLR(torch.optim.Adam([learned()]), 10),
        },
        r"decay \(StepLR\); .* in a state_dict of your own",
    ),
    "a learned tensor": (
        lambda agent: {"alpha": learned()},
        r"alpha \(Tensor\); name it in state_fields",
    ),
    "learned tensors": (lambda agent: {"x": {"a": (1, learned())}}, r"x \(dict with Tensor\)"),
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


def test_what_a_checkpoint_contains_may_also_be_in_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attributes(agent: Any) -> dict[str, Any]:
        alpha = learned()
        optimizer = torch.optim.Adam([alpha])
        return {
            "parameters": [*agent.policy.parameters(), alpha],
            "alpha": alpha,
            "optimizer": optimizer,
            "all": {"alpha": optimizer},
            "layers": (agent.policy,),
            "generator": agent.train_noise.generator,
            "kind": nn.Linear,
            "sizes": [3, torch.zeros(2)],
        }

    made(monkeypatch, {**with_attributes(attributes), "state_fields": ("alpha",)})


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
    ],
)
def test_a_checkpoint_of_a_class_that_has_changed_is_refused(
    attributes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(monkeypatch, {})
    after = made(monkeypatch, with_attributes(lambda agent: attributes))
    before.load_state_dict(before.state_dict())
    for agent, other in ((before, after), (after, before)):
        with pytest.raises(UserError, match=r"does not fit the class .*restore its code") as error:
            agent.load_state_dict(other.state_dict())
        assert error.match(message)
