"""TD-MPC with the bfloat16 kernels: layers, plans, updates, resuming."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.kernels.bf16_layers import NATIVE, Bf16MLP
from baselines.networks import MLP
from tdmpc2 import acceleration
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.numerics.precision import round_to_bf16
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.kernels import bf16
from tests.baselines.agents import tdmpc
from tests.baselines.shapes import Random
from tests.baselines.test_precision import ULP, assert_updates_agree, distance
from tests.baselines.test_runs import small
from tests.kill_driver import Blow, Done
from tests.runs import files, outcome, run_directory

pytestmark = pytest.mark.skipif(
    bf16.built() and not bf16.load(), reason="oneDNN does not multiply tiled bfloat16 on this CPU"
)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels, whatever the CPU."""
    monkeypatch.setattr(fused_bf16, "choice", lambda: fused_bf16.Choice(True, "forced"))


def pair(norm: bool = True, out_dim: int = 6) -> tuple[MLP, MLP]:
    """Return equal MLPs, one of which uses the kernels."""
    plain = MLP([30, 64, 96, out_dim], "elu", norm_first=norm, precision="bf16")
    for parameter in plain.parameters():
        parameter.data += 0.1 * Random(2).normal(*parameter.shape)
    fast = copy.deepcopy(plain)
    assert NATIVE.install([fast], torch.device("cpu"))
    assert isinstance(fast, Bf16MLP)
    return plain, fast


@pytest.mark.parametrize("out_dim", [6, 1])
@pytest.mark.parametrize("norm", [True, False])
def test_an_mlp_equals_plain_layers(norm: bool, out_dim: int) -> None:
    """Values from rounded factors, and gradients of inputs and parameters."""
    plain, fast = pair(norm, out_dim)
    z, a = Random(1).normal(3, 64, 24), Random(3).normal(3, 64, 6)
    y = torch.cat([z, a], -1)
    for i, layer in enumerate(fast.layers):
        y = round_to_bf16(y) @ round_to_bf16(layer.weight).T + layer.bias
        if i == 0 and fast.norm is not None:
            y = torch.tanh(fast.norm(y))
        elif i < 2:
            y = torch.nn.functional.elu(y)
    found = []
    for net in (plain, fast):
        inputs = [x.clone().requires_grad_() for x in (z, a)]
        ours = net(*inputs)
        assert ours.dtype == torch.float32
        assert distance(ours, y) < ULP
        with torch.no_grad():
            assert distance(net(*inputs), y) < ULP
        found.append(torch.autograd.grad(ours.square().sum(), [*inputs, *net.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        assert distance(ours, theirs) < 5 * ULP


def test_frozen_parameters_have_no_gradients() -> None:
    plain, fast = pair()
    gradients = []
    for net in (plain, fast):
        x = Random(1).normal(64, 30).requires_grad_()
        net(x, frozen=True).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
        assert all(p.grad is None for p in net.parameters())
    assert distance(*gradients) < 3 * ULP


def test_few_rows_and_odd_widths_use_plain_layers() -> None:
    plain, fast = pair()
    x = Random(1).normal(31, 30)
    torch.testing.assert_close(fast(x), plain(x), rtol=0, atol=0)
    assert not torch.equal(fast(Random(1).normal(32, 30)), plain(Random(1).normal(32, 30)))
    odd = MLP([30, 48, 6], "elu", precision="bf16")
    assert NATIVE.install([odd], torch.device("cpu"))
    assert type(odd) is MLP


@pytest.mark.usefixtures("forced")
def test_a_plan_multiplies_by_tiled_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tiled once per plan, and the plan is that of float32 up to rounding."""
    means, tiled = [], []
    original = bf16.dense

    def watched(parts: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
        tiled.append(weights.data_ptr())
        return original(parts, weights, *args, **kwargs)

    monkeypatch.setattr(bf16, "dense", watched)
    for precision in ("fp32", "bf16"):
        agent, _ = tdmpc(precision=precision)
        acceleration.install(agent)
        agent.act(np.ones((1, 5), np.float32), first=np.array([True]), explore=False)
        means.append(agent.previous_mean[True])
    networks = (agent.model.dynamics, agent.model.reward_head, agent.model.policy)
    layers = [layer for net in (*networks, *agent.model.q_functions) for layer in net.layers]
    assert len(set(tiled)) == len(layers) < len(tiled)
    assert all(layer.tiled is None for layer in layers)
    torch.testing.assert_close(*means, rtol=0, atol=0.05)


@pytest.mark.usefixtures("forced")
def test_an_update_equals_one_in_float32() -> None:
    assert_updates_agree("tdmpc")


def test_a_killed_run_repeats_byte_for_byte(tmp_path: Path) -> None:
    """It resumes only with the kernels."""
    options: dict[str, Any] = {"precision": "bf16", "compile": "true", "batch_size": 40}
    options |= {"mlp_dim": 32, "enc_dim": 32, "num_samples": 30}
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def train(runs: Path, blow: Blow | None = None, module: str = "tests.forced_bf16") -> Done:
        return small("tdmpc", runs, blow, module=module, **options)

    assert train(whole).code == 0
    done = train(killed, Blow("baselines.tdmpc.agent:TDMPC.update", 20))
    assert done.code == -signal.SIGKILL, done
    assert read_json(run_directory(killed) / "numeric.json")["bf16_kernels"] is True
    if not fused_bf16.choice().used:
        assert train(killed, module="tdmpc2.train").code == 2
    assert train(killed).code == 0
    assert outcome(killed) == outcome(whole)
    assert files(killed) == files(whole)
