"""Test golden parity with arrays recorded from the official implementations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from baselines import kernels
from tdmpc2 import acceleration
from tests.golden_baselines import (
    READERS,
    Errors,
    GoldenDreamerV3,
    GoldenSAC,
    GoldenTDMPC,
    errors_of_dreamerv3_imagination,
    errors_of_dreamerv3_networks,
    errors_of_sac_networks,
    errors_of_tdmpc_networks,
    errors_of_tdmpc_plans,
    errors_of_tdmpc_replay,
    errors_of_tdmpc_schedules,
    errors_of_updates,
)

# Tolerances for float32 rounding over whole updates, as stated with the recorded arrays.
ROUND_OFF = {"absolute": 1e-6, "relative": 1e-5}


@pytest.fixture(params=[False, True], ids=["plain", "native"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the networks use the native kernels."""
    if request.param and not kernels.load():
        pytest.skip("missing: a C++ compiler")
    return bool(request.param)


def prepared(agent: Any, native: bool) -> Any:
    """Return the agent, with native kernels if `native`."""
    if native:
        acceleration.install(agent)
    return agent


def check(errors: Errors) -> None:
    """Check that all errors are within the tolerances of rounding."""
    assert errors
    assert errors.above(**ROUND_OFF) == {}


@pytest.mark.parametrize("method", READERS)
def test_updates(method: str, native: bool) -> None:
    """Compare losses, norms and gradients of all updates, and all weights after each."""
    golden = READERS[method]()
    check(errors_of_updates(golden, prepared(golden.agent(), native)))


def test_sac_networks(native: bool) -> None:
    """Compare critics, target critics and the actor's log probabilities."""
    golden = GoldenSAC()
    check(errors_of_sac_networks(golden, prepared(golden.agent(), native)))


def test_tdmpc_networks(native: bool) -> None:
    """Compare every network, and the policy's clipped noise."""
    golden = GoldenTDMPC()
    check(errors_of_tdmpc_networks(golden, prepared(golden.agent(), native)))


def test_tdmpc_replay() -> None:
    """Compare priorities, probabilities and importance weights."""
    check(errors_of_tdmpc_replay(GoldenTDMPC()))


def test_tdmpc_plans(native: bool) -> None:
    """Compare planning calls with and without exploration, during and after the schedules."""
    golden = GoldenTDMPC()
    assert len(golden.plans) == 6
    check(errors_of_tdmpc_plans(golden, prepared(golden.agent(after=5), native)))


def test_tdmpc_schedules() -> None:
    """Compare horizon and σ_min of the planner."""
    check(errors_of_tdmpc_schedules(GoldenTDMPC()))


def test_dreamerv3_world_model(native: bool) -> None:
    """Compare recurrent states with resets within sequences, and each loss by element."""
    golden = GoldenDreamerV3()
    check(errors_of_dreamerv3_networks(golden, prepared(golden.agent(), native)))


def test_dreamerv3_imagination(native: bool) -> None:
    """Compare imagined states, actions, rewards, values, returns and loss weights."""
    golden = GoldenDreamerV3()
    check(errors_of_dreamerv3_imagination(golden, prepared(golden.agent(), native)))


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("sac", {"discount": 0.995}),
        ("sac", {"tau": 0.006}),
        ("tdmpc", {"rho": 0.51}),
        ("tdmpc", {"grad_clip_norm": 20.0}),
        ("tdmpc", {"loss_clip": 1e5}),
        ("dreamerv3", {"free_nats": 1.5}),
        ("dreamerv3", {"discount_horizon": 330.0}),
        ("dreamerv3", {"return_decay": 0.98}),
    ],
)
def test_updates_with_a_wrong_setting_differ(method: str, setting: dict[str, float]) -> None:
    """With another value of any of these settings, the comparison fails."""
    golden = READERS[method]()
    config = dataclasses.replace(golden.config(), **setting)
    golden.config = lambda: config
    assert errors_of_updates(golden, golden.agent()).above(**ROUND_OFF)


def test_errors_by_hand() -> None:
    """The largest error of each quantity counts; NaN exceeds every tolerance."""
    errors, recorded = Errors(), torch.tensor([1.0, -4.0])
    errors.absolute("x", torch.tensor([1.5, -4.25]), recorded)
    errors.absolute("x", torch.tensor([1.25, -4.0]), recorded)
    errors.relative("elements", torch.tensor([1.5, -4.25]), recorded)
    errors.scaled("largest element", torch.tensor([1.5, -4.25]), recorded)
    errors.scaled("small elements", torch.tensor([0.25]), torch.tensor([0.5]))
    errors.norm(
        "norm", [torch.tensor([4.0]), torch.tensor(3.0)], [torch.tensor([4.0]), recorded[0]]
    )
    errors.relative("nan", torch.tensor([math.nan, -4.0]), recorded)
    assert errors == pytest.approx(
        {
            "absolute/x": 0.5,
            "relative/elements": 0.5,
            "relative/largest element": 0.125,
            "relative/small elements": 0.25,
            "relative/norm": 2 / math.sqrt(17),
            "relative/nan": math.inf,
        }
    )
    assert set(errors.above(absolute=0.5, relative=1.0)) == {"relative/nan"}
    with pytest.raises(ValueError, match=r"shape \(3,\), but \(2,\) was recorded"):
        errors.absolute("x", torch.zeros(3), recorded)
