"""Test the baselines with `precision=bf16` and `precision=tf32`."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import kernels
from baselines.kernels.layers import NATIVE, NativeMLP
from baselines.networks import MLP
from sweeps.planning.request import SweepRequest
from tdmpc2 import acceleration
from tdmpc2.common.numerics import precision as precisions
from tdmpc2.common.numerics.precision import products_in, round_to_bf16
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.runners.registry import METHODS
from tests.baselines.agents import dreamerv3, sac, tdmpc
from tests.baselines.shapes import Random
from tests.baselines.test_runs import small
from tests.kill_driver import Blow
from tests.runs import files, outcome, run_directory

ULP = 2.0**-8  # relative precision of bfloat16
MAKERS = {"sac": sac, "tdmpc": tdmpc, "dreamerv3": dreamerv3}


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the norm of the difference, relative to that of the second tensor."""
    return float(((ours - theirs).norm() / theirs.norm()).detach())


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_only_matrix_multiplications_are_rounded(activation: str) -> None:
    net = MLP([30, 48, 48, 6], activation, norm_first=activation == "elu", precision="bf16")
    x = Random(1).normal(64, 30)
    ours = net(x)
    assert ours.dtype == torch.float32
    y = x
    for i, layer in enumerate(net.layers):
        y = round_to_bf16(y) @ round_to_bf16(layer.weight).T + layer.bias
        if i == 0 and net.norm is not None:
            y = torch.tanh(net.norm(y))
        elif i < 2:
            y = torch.relu(y) if activation == "relu" else torch.nn.functional.elu(y)
    assert distance(ours, y) < ULP
    net.precision = "fp32"
    assert 1e-4 < distance(ours, net(x)) < 4 * ULP


@pytest.mark.skipif(not kernels.load(), reason="missing: a C++ compiler")
def test_native_float32_layers_are_not_used_for_bf16() -> None:
    for precision, used in (("fp32", True), ("tf32", True), ("bf16", False)):
        net = MLP([30, 48, 6], "relu", precision=precision)
        assert NATIVE.install([net], torch.device("cpu"))
        assert isinstance(net, NativeMLP) is used


@pytest.mark.parametrize("method", MAKERS)
def test_an_update_in_bf16_differs_by_rounding_only(method: str) -> None:
    assert_updates_agree(method)


def assert_updates_agree(method: str) -> None:
    """Check an update in bfloat16 against one in float32: gradient norm and direction."""
    moved = []
    for precision in ("fp32", "bf16"):
        agent, args = MAKERS[method](precision=precision)
        acceleration.install(agent)
        before = copy.deepcopy(agent.state_dict())
        result: Any = agent.update_on(*args)
        metrics = result[0] if isinstance(result, tuple) else result
        after = agent.state_dict()
        name = "nets" if method == "sac" else "model"
        change = [
            (after[name][key] - value).flatten()
            for key, value in before[name].items()
            if value.is_floating_point()
        ]
        moved.append((float(metrics["grad_norm"]), torch.cat(change)))
    (norm, change), (rounded_norm, rounded_change) = moved
    assert rounded_norm != norm
    assert rounded_norm == pytest.approx(norm, rel=0.02)
    # The first step of Adam has the sign of each gradient: small ones may change theirs.
    agree = torch.nn.functional.cosine_similarity(rounded_change, change, dim=0)
    assert 0.9 < float(agree) < 1


@pytest.mark.parametrize("method", MAKERS)
def test_actions_in_bf16_are_close(method: str) -> None:
    actions = []
    for precision in ("fp32", "bf16"):
        agent, _ = MAKERS[method](precision=precision)
        acceleration.install(agent)
        agent.seed_evaluation(3)
        obs = Random(4).normal(40, 5).numpy()
        actions.append(agent.act(obs, first=np.ones(40, dtype=bool), explore=False))
    assert not np.array_equal(*actions)
    # A planner draws its action from the best samples: rounding can change which these are.
    assert np.median(np.abs(actions[0] - actions[1])) < 0.02


@pytest.mark.parametrize("emulated", [False, True])
def test_dreamerv3_decodes_rewards_and_values_in_float32(
    monkeypatch: pytest.MonkeyPatch, emulated: bool
) -> None:
    monkeypatch.setattr(precisions, "lacks_bf16", lambda: emulated)
    agent, _ = dreamerv3(precision="bf16")
    exact = torch.tensor([-100.0, 100.0, 300.0, 1000.0])
    for regression in (agent.model.regression, agent.behavior.regression):
        logits = regression.two_hot(exact).log()
        with products_in("bf16", "cpu"):
            decoded = regression.decode(logits)
        assert decoded.dtype == torch.float32
        torch.testing.assert_close(decoded, exact, rtol=1e-4, atol=0.0)


def test_a_killed_run_in_bf16_repeats_byte_for_byte(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert small("sac", whole, precision="bf16").code == 0
    done = small("sac", killed, Blow("baselines.sac:SAC.update", 20), precision="bf16")
    assert done.code == -signal.SIGKILL, done
    assert small("sac", killed, precision="bf16").code == 0
    assert outcome(killed) == outcome(whole)
    assert files(killed) == files(whole)
    assert read_json(run_directory(killed) / "numeric.json")["precision"] == "bf16"


def test_a_sweep_of_all_methods_has_one_precision() -> None:
    values = {"tasks": "walker-walk", "methods": ",".join(METHODS), "precision": "bf16"}
    request = SweepRequest.from_arguments([f"{key}={value}" for key, value in values.items()])
    found = {(one.spec.method, dict(one.spec.overrides)["precision"]) for one in request.planned}
    assert found == {(method, "bf16") for method in METHODS}
