"""Test the native networks against plain PyTorch, alone and in the agents."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import kernels
from baselines.dreamerv3.agent import DreamerV3
from baselines.kernels.layers import NATIVE
from baselines.networks import MLP
from baselines.tdmpc.agent import TDMPC
from baselines.tdmpc.config import TDMPCConfig
from tdmpc2 import acceleration
from tests.baselines.agents import dreamerv3, sac, tdmpc
from tests.baselines.shapes import TWO_TASKS, Random, random_batch

pytestmark = [
    pytest.mark.skipif(not kernels.load(), reason="missing: a C++ compiler"),
    pytest.mark.usefixtures("library"),
]


def native(net: MLP) -> MLP:
    """Return a copy of a network that uses the native kernel."""
    copied = copy.deepcopy(net)
    assert NATIVE.install([copied], torch.device("cpu"))
    return copied


def close(ours: Any, theirs: Any) -> None:
    """Check equality within 1e-5 of the largest value."""
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.detach(), b.detach()
        assert (a - b).abs().max() <= 1e-5 * max(float(b.abs().max()), 1e-3)


@pytest.mark.parametrize("rows", [40, 512, 537, 2560])
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_networks_and_their_gradients(activation: str, norm: bool, rows: int) -> None:
    net = MLP([30, 144, 48, 6], activation, norm_first=norm)
    random = Random(1)
    for parameter in net.parameters():
        parameter.data += 0.2 * random.normal(*parameter.shape)
    x = random.normal(rows, 24).requires_grad_()
    action = random.normal(rows, 6).requires_grad_()
    weight = random.normal(rows, 6)
    outcomes = []
    for network in (native(net), net):
        y, frozen = network(x, action), network(x, action, frozen=True)
        everything = [x, action, *network.parameters()]
        found = [y, *torch.autograd.grad((y * weight).sum(), everything)]
        found += [frozen, *torch.autograd.grad((frozen * weight).sum(), action)]
        with torch.no_grad():
            found.append(network(x, action))
        outcomes.append(found)
    close(*outcomes)


@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize("reached", [0, 1, 100, 511, 512])
def test_rows_that_no_gradient_reaches_are_left_out(reached: int, norm: bool) -> None:
    net = MLP([30, 48, 48, 2], "elu", norm_first=norm).requires_grad_(False)
    random = Random(1)
    x = random.normal(512, 30).requires_grad_()
    weight = random.normal(512, 2)
    weight[torch.randperm(512, generator=random.generator)[reached:]] = 0
    found = [torch.autograd.grad((n(x) * weight).sum(), x) for n in (native(net), net)]
    close(*found)
    assert int(found[0][0].any(dim=1).sum()) == reached


def test_a_gradient_that_is_not_a_number_stays_so() -> None:
    net = native(MLP([30, 48, 2], "relu").requires_grad_(False))
    x = Random(1).normal(512, 30).requires_grad_()
    weight = torch.zeros(512, 2)
    weight[7] = torch.nan
    (found,) = torch.autograd.grad((net(x) * weight).sum(), x)
    assert found.isnan().any(dim=1).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_an_input_that_is_not_a_number_is_not_hidden(activation: str, norm: bool) -> None:
    """It is NaN in all outputs of its row, as in plain PyTorch; not infinite."""
    net = native(MLP([30, 48, 32, 2], activation, norm_first=norm))
    x = Random(1).normal(64, 30)
    x[5, 3] = torch.nan
    with torch.no_grad():
        y = net(x)
    assert y.isnan().all(dim=1).nonzero().flatten().tolist() == [5]
    assert y[[4, 6]].isfinite().all()


def test_parts_of_an_input_are_broadcast() -> None:
    net = MLP([8, 16, 3], "elu")
    z, action = Random(1).normal(4, 1, 5), Random(2).normal(4, 19, 3)
    ours = native(net)(z, action)
    assert ours.shape == (4, 19, 3)
    close([ours], [net(z, action)])


def test_an_embedding_is_broadcast_over_time() -> None:
    """The last input has fewer leading dimensions than the others."""
    net = MLP([8, 16, 3], "elu")
    obs, embedding = Random(1).normal(3, 40, 5), Random(2).normal(40, 3)
    ours = native(net)(obs, embedding)
    assert ours.shape == (3, 40, 3)
    close([ours], [net(obs, embedding)])


def test_an_agent_of_several_tasks_learns() -> None:
    """Its encoder receives observations over time and one embedding per row."""
    sizes = {"enc_dim": 16, "mlp_dim": 16, "latent_dim": 6, "task_dim": 4, "horizon": 3}
    config = TDMPCConfig.make(multitask=True, **sizes)
    losses = []
    for accelerated in (True, False):
        agent = TDMPC(config, TWO_TASKS, seed=0)
        if accelerated:
            acceleration.install(agent)
        noise = Random(1).normal(7, 40, 3)
        metrics, priorities = agent.update_on(random_batch(TWO_TASKS, 3, 40), noise)
        losses.append([*metrics.values(), priorities])
    close(*losses)


@pytest.mark.parametrize(("width", "rows"), [(17, 64), (16, 4)], ids=["odd width", "few rows"])
def test_what_the_kernel_is_no_good_for_goes_the_plain_way(width: int, rows: int) -> None:
    net = MLP([8, width, 3], "relu")
    x = Random(1).normal(rows, 8)
    assert torch.equal(native(net)(x), net(x))


@pytest.mark.parametrize("shape", [(5, 32), (3, 4, 512), (1, 16)])
def test_norm_and_silu(shape: tuple[int, ...]) -> None:
    random = Random(1)
    x = (3 * random.normal(*shape)).requires_grad_()
    scale, shift = (random.normal(shape[-1]).requires_grad_() for _ in range(2))
    ours = kernels.norm_silu(x, scale, shift, 1e-3)
    plain = F.silu(F.layer_norm(x, shape[-1:], scale, shift, 1e-3))
    weight = random.normal(*shape)
    grads = [torch.autograd.grad((y * weight).sum(), [x, scale, shift]) for y in (ours, plain)]
    close([ours, *grads[0]], [plain, *grads[1]])


def test_silu_of_large_values() -> None:
    x = torch.tensor([[1.0] + [-1.0] * 15])
    scale = torch.full((16,), 200.0)
    y = kernels.norm_silu(x, scale, torch.zeros(16), 1e-3)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, F.silu(F.layer_norm(x, (16,), scale, None, 1e-3)))


@pytest.mark.parametrize("make", [sac, tdmpc, dreamerv3])
def test_an_update_is_the_same_with_kernels(make: Any) -> None:
    plain, args = make()
    fast, _ = make()
    acceleration.install(fast)
    for agent in (plain, fast):
        result = agent.update_on(*args)
        agent.metrics = result[0] if isinstance(result, tuple) else result
    assert plain.metrics.keys() == fast.metrics.keys()
    for name, value in plain.metrics.items():
        assert float(fast.metrics[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    optimizers = [
        list(agent.optimizers.values())
        if isinstance(agent, DreamerV3)
        else [o for o in vars(agent).values() if isinstance(o, torch.optim.Adam)]
        for agent in (plain, fast)
    ]
    for a, b in zip(*optimizers, strict=True):
        for p, q in zip(a.param_groups[0]["params"], b.param_groups[0]["params"], strict=True):
            largest = max(float(p.grad.abs().max()), 1e-6)
            assert (p.grad - q.grad).abs().max() <= 1e-4 * largest


@pytest.mark.parametrize("make", [sac, tdmpc, dreamerv3])
def test_actions_are_the_same_with_kernels(make: Any) -> None:
    plain, args = make()
    fast, _ = make()
    acceleration.install(fast)
    obs = Random(4).normal(2, 5).numpy()
    for agent in (plain, fast):
        agent.seed_evaluation(3)
    for first in (True, False):
        start = np.array([first, first])
        ours, theirs = (a.act(obs, first=start, explore=False) for a in (fast, plain))
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    if isinstance(
        fast, TDMPC
    ):  # planning uses blocked weights, which are updated with the parameters
        before = copy.deepcopy(fast.model.state_dict())
        fast.update_on(*args)
        plain.model.load_state_dict(fast.model.state_dict())
        assert any(not torch.equal(before[k], v) for k, v in fast.model.state_dict().items())
        for agent in (plain, fast):
            agent.seed_evaluation(4)
        start = np.array([True, True])
        ours, theirs = (a.act(obs, first=start, explore=False) for a in (fast, plain))
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
