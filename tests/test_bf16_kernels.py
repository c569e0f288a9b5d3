"""Test the bfloat16 kernels against plain PyTorch with rounded factors, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2 import acceleration
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.kernels import bf16
from tdmpc2.kernels.bf16_layers import Bf16EnsembleLinear, Bf16Linear, Bf16NormedLinear
from tdmpc2.layers import mish, simnorm
from tests.helpers import env_spec, make_agent, random_batch, tiny_config
from tests.kill_driver import Blow, Command
from tests.runs import arguments, outcome, run_directory

pytestmark = pytest.mark.skipif(
    bf16.built() and not bf16.load(), reason="oneDNN does not multiply tiled bfloat16 on this CPU"
)

WIDE = {"mlp_dim": 64, "latent_dim": 32, "num_samples": 256, "num_pi_samples": 24}
ROUNDING = 2.0**-8  # largest relative error of a number rounded to bfloat16
PARAMS = ((), (), ())  # bias, gamma, beta


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels, whatever the CPU."""
    monkeypatch.setattr(fused_bf16, "choice", lambda: fused_bf16.Choice(True, "forced"))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def tiled(weight: Tensor) -> Tensor:
    """Return tiled weights of `(K, O, I)`."""
    copy = torch.full((weight.shape[0], torch.ops.tdmpc2.bf16_size(*weight.shape[1:])), torch.nan)
    copy = copy.bfloat16()
    torch.ops.tdmpc2.bf16_tile_(copy, weight)
    return copy


def definition(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, group: int
) -> Tensor:
    """Compute a layer in float64 from rounded factors; `(K, ...)` for K layers."""
    x = rounded(x) @ rounded(weight).mT + bias.double().unsqueeze(-2)
    x = F.layer_norm(x, x.shape[-1:]) * gamma.double().unsqueeze(-2) + beta.double().unsqueeze(-2)
    return simnorm(x, group, 0.7) if group else mish(x)


def assert_layer(ours: Tensor, expected: Tensor, group: int) -> None:
    if group == 0:
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), expected, rtol=ROUNDING, atol=1e-5)
    else:
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", [0, 8], ids=["mish", "simnorm"])
@pytest.mark.parametrize("heads", [None, [3, 1]], ids=str)
@pytest.mark.parametrize("rows", [256, 100, 1])
@pytest.mark.parametrize("shared", [True, False], ids=["same input", "an input each"])
@pytest.mark.parametrize("in_dim", [37, 64])
def test_dense_is_a_whole_layer(
    in_dim: int, shared: bool, rows: int, heads: list[int] | None, group: int
) -> None:
    num = 4 if heads is None else 2
    weight, bias, gamma, beta = (
        drawn(4, 160, *s, seed=i) for i, s in enumerate(((in_dim,), *PARAMS))
    )
    x = drawn(*(() if shared else (num,)), rows, in_dim, seed=7)
    index = slice(None) if heads is None else heads
    chosen = None if heads is None else torch.tensor(heads)
    expected = definition(x, *(p[index] for p in (weight, bias, gamma, beta)), group)
    options = {"heads": chosen, "group": group, "tau": 0.7}
    for inputs in ([x], [x.bfloat16()], [x[..., :30], x[..., 30:]]):
        if len(inputs) == 1 or shared:
            ours = bf16.dense(inputs, tiled(weight), bias, gamma, beta, **options)
            assert_layer(ours, expected, group)


@pytest.mark.parametrize("out_dim", [32, 544, 1024])
@pytest.mark.parametrize("in_dim", [5, 512, 2048])
def test_all_sizes_of_weights(in_dim: int, out_dim: int) -> None:
    """Several panels of columns, also narrow ones for many rows."""
    x, params = drawn(70, in_dim), [drawn(out_dim, seed=i) for i in (1, 2, 3)]
    weight = drawn(out_dim, in_dim, seed=4)
    ours = bf16.dense([x], tiled(weight[None]), *params, group=8, tau=0.7)
    assert_layer(ours, definition(x, weight, *params, 8), 8)


def test_shared_inputs_are_multiplied_once() -> None:
    """The rows of an environment share its latent and task embedding."""
    latent, task, action = drawn(3, 1, 40), drawn(3, 1, 10, seed=1), drawn(3, 90, 7, seed=2)
    weight, params = drawn(64, 57, seed=3), [drawn(64, seed=i) for i in (4, 5, 6)]
    weights = tiled(weight[None])
    own = latent.expand(3, 90, 40)
    expected = definition(torch.cat([own, task.expand(3, 90, 10), action], -1), weight, *params, 0)
    for inputs in ([latent, task, action], [own, task, action]):
        ours = bf16.dense(inputs, weights, *params)
        assert ours.shape == (3, 90, 64)
        assert_layer(ours, expected, 0)


def test_output_layers_have_no_norm() -> None:
    """They return float32, also of ensembles and of widths that are not whole tiles."""
    x, weight, bias = drawn(2, 50, 64), drawn(5, 101, 64, seed=1), drawn(5, 101, seed=2)
    heads = torch.tensor([4, 0])
    ours = bf16.dense([x], tiled(weight), bias, heads=heads)
    expected = rounded(x) @ rounded(weight[heads]).mT + bias[heads][:, None]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-4)
    ours = bf16.dense([x], tiled(weight[:1]), bias[0])
    expected = rounded(x) @ rounded(weight[0]).mT + bias[0]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-4)


def test_nan_is_not_hidden() -> None:
    x, ones = torch.ones(4, 32), torch.ones(32)
    x[1, 3] = torch.nan
    weights = tiled(drawn(1, 32, 32))
    for group in (0, 8):
        y = bf16.dense([x], weights, ones, ones, ones, group=group)
        assert y[1].isnan().all()
        assert y[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_rows(threads: int) -> None:
    before = torch.get_num_threads()
    weights, ones = tiled(drawn(1, 64, 48)), torch.ones(64)
    try:
        outcomes = []
        for num in (1, threads):
            torch.set_num_threads(num)
            outcomes.append(bf16.dense([drawn(300, 48, seed=1)], weights, ones, ones, ones))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*outcomes)


def test_only_suitable_inputs_use_tiled_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, z, a = torch.ones(1), torch.ones(2, 1, 6), torch.ones(2, 9, 3)
    with torch.no_grad():
        assert not bf16.usable([z], weights)  # not compiled
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert bf16.usable([z], weights)
        assert bf16.usable([z, a], weights)
        assert bf16.usable([a, a], weights)
        assert not bf16.usable([z], None)
        assert not bf16.usable([z[..., :5], a], weights)  # begins at an odd column
        assert not bf16.usable([torch.ones(4, 2, 9, 6), z], weights)  # broadcast over time
    assert not bf16.usable([z], weights)  # with gradients


# --- agents --------------------------------------------------------------------------


@pytest.mark.usefixtures("forced")
def test_planning_uses_tiled_weights() -> None:
    """All layers of the planner's networks have them during a plan, and only then."""
    agent = make_agent(tiny_config(**WIDE, precision="bf16"))
    model, plan, seen = agent.model, agent.functions.plan, []

    def layers() -> list[Any]:
        networks = (model.dynamics, model.reward_head, model.policy, model.q_functions)
        modules = [module for network in networks for module in network.modules()]
        normed = [m.linear for m in modules if isinstance(m, Bf16NormedLinear)]
        return normed + [m for m in modules if isinstance(m, Bf16Linear | Bf16EnsembleLinear)]

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.extend(layer.tiled is not None for layer in layers())
        return plan(*args, **kwargs)

    agent.functions.plan = watched
    acceleration.install(agent)
    agent.act(np.zeros((1, 5), np.float32), first=np.array([True]), explore=False)
    assert len(seen) > 10
    assert all(seen)
    assert all(layer.tiled is None for layer in layers())


@pytest.mark.usefixtures("forced")
def test_a_step_of_the_optimizer_renews_tiled_weights() -> None:
    """Plans after large updates equal those of an agent that loads the same weights."""
    config = tiny_config(**WIDE, precision="bf16")
    agents = [make_agent(config) for _ in range(2)]
    compiler = acceleration.install(agents[0])
    obs, first = np.ones((1, 5), np.float32), np.array([True])
    agents[0].act(obs, first=first, explore=False)
    for group in agents[0].optimizer.param_groups:
        group["lr"] = 0.01
    batch = random_batch(config, env_spec(), 0)
    agents[0].update_on(batch, agents[0].train_noise.update(config.batch_size))
    agents[1].load_state_dict(agents[0].state_dict())
    acceleration.install(agents[1])
    for agent in agents:
        agent.seed_evaluation(0)
    actions = [agent.act(obs, first=first, explore=False) for agent in agents]
    np.testing.assert_array_equal(*actions)
    assert compiler.enabled


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed among the updates and resumed in another process; not without the kernels."""
    sizes = {"mlp_dim": 32, "latent_dim": 32, "num_samples": 64, "precision": "bf16"}
    compiled, module = {**sizes, "compile": "true"}, "tests.forced_bf16"

    def train(name: str, blow: Blow | None = None, module: str = module) -> int:
        line = arguments(tmp_path / name, **compiled)
        return Command(line, blow, module=module).run().code

    assert train("whole") == 0
    assert train("killed", Blow("tdmpc2.world_model:WorldModel.update_target", 70)) == -9
    assert read_json(run_directory(tmp_path / "killed") / "numeric.json")["bf16_kernels"] is True
    if not fused_bf16.choice().used:
        assert train("killed", module="tdmpc2.train") == 2
    assert train("killed") == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
