"""The Triton kernels equal plain PyTorch, in Triton's interpreter on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2.acceleration import _use_native_layers
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.kernels import triton_ops
from tdmpc2.kernels.layers import NATIVE
from tdmpc2.layers import mish, simnorm
from tests.helpers import make_agent, random_batch
from tests.test_kernels import definition, drawn

TOLERANCE = 1e-5
SHAPES = [(1, 13, 512), (3, 70, 384), (2, 40, 96)]
# A process of its own, because Triton reads the variable when its kernels are defined.
SCRIPT = """
import json, sys, torch
from tdmpc2.kernels import triton_kernels, triton_ops
found = []
for num, rows, dim in json.loads(sys.argv[1]):
    generator = torch.Generator().manual_seed(0)
    for group, tau, dropped in triton_ops.CASES:
        x, grad = (torch.randn(num, rows, dim, generator=generator) for _ in range(2))
        params = [torch.randn(num, dim, generator=generator) for _ in range(3)]
        factor = (torch.rand(x.shape, generator=generator) > 0.1) / 0.9 if dropped else None
        y, stats = triton_ops.plain(x, *params, factor, group, tau)
        dx, sums = triton_ops.plain_backward(grad, x, y, stats, *params, factor, group, tau)
        own_y, own_stats = triton_kernels.forward(x, *params, factor, group, tau, triton_ops.EPS)
        args = (own_y, own_stats, *params, factor, group, tau)
        own_dx, own_sums = triton_kernels.backward(grad, x, *args)
        assert own_sums.shape == sums.shape
        pairs = ((own_y, y), (own_stats, stats), (own_dx, dx), (own_sums.sum(2), sums.sum(2)))
        found += [float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="missing: triton, which torch for CPUs lacks"
)
def test_kernels_equal_plain_pytorch() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SHAPES)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    errors = json.loads(result.stdout)
    assert len(errors) == 4 * len(SHAPES) * len(triton_ops.CASES)
    assert max(errors) <= TOLERANCE


@pytest.mark.parametrize("group", [0, 8], ids=["mish", "simnorm"])
@pytest.mark.parametrize("dropped", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize(("num", "rows", "dim"), SHAPES)
def test_the_plain_operations_equal_the_layers(
    num: int, rows: int, dim: int, dropped: bool, group: int
) -> None:
    args = [drawn(num, rows, dim), *(drawn(num, dim, seed=i) for i in (1, 2, 3))]
    factor = (drawn(num, rows, dim, seed=4) > -1).float() / 0.84 if dropped else None
    expected = definition(*args, factor, group)
    found = triton_ops.norm_act(*args, factor, group, 0.7)[0]
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    grad = drawn(num, rows, dim, seed=5).detach()
    for ours, theirs in zip(
        torch.autograd.grad(found, args, grad),
        torch.autograd.grad(expected, args, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=1e-4)


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("num", [1, 3], ids=["one layer", "three layers"])
def test_parameters_in_one_tensor_have_the_same_gradients(num: int, calls: int) -> None:
    """`spread` gives every program a copy; the copies' gradients sum to those of the layer."""
    rows, dim = 130, 96
    lead = (num,) if num > 1 else ()
    params = [drawn(*lead, dim, seed=i) for i in (1, 2, 3)]
    inputs = [drawn(*lead, rows, dim, seed=10 + i) for i in range(calls)]
    copies = triton_ops.spread(torch.stack(params), rows)
    assert copies.shape[-2] == triton_ops.partition(rows)[1] > 1
    one = sum(triton_ops.norm_act(x, copies, None, None, None, 8, 0.7)[0] for x in inputs)
    other = sum(triton_ops.norm_act(x, *params, None, 8, 0.7)[0] for x in inputs)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    grad = drawn(*lead, rows, dim, seed=5).detach()
    for ours, theirs in zip(
        torch.autograd.grad(one, [*params, *inputs], grad),
        torch.autograd.grad(other, [*params, *inputs], grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=1e-4)


def test_parameters_in_one_tensor_under_vmap() -> None:
    num, rows, dim = 2, 70, 96
    x, params = drawn(num, rows, dim), drawn(num, 3, dim, seed=1)

    def layer(x: Tensor, params: Tensor) -> Tensor:
        copies = triton_ops.spread(params, rows)
        return triton_ops.norm_act(x, copies, None, None, None, 0, 1.0)[0]

    expected = torch.stack([layer(*pair) for pair in zip(x, params, strict=True)])
    torch.testing.assert_close(torch.vmap(layer)(x, params), expected, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 256, 768, 4608])
def test_every_row_has_a_program(rows: int) -> None:
    each, programs = triton_ops.partition(rows)
    assert programs <= triton_ops.PARTIAL_SUMS
    assert each * (programs - 1) < rows <= each * programs


def test_the_self_test_finds_wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triton_ops.self_test(torch.device("cpu")) == 0.0
    right = triton_ops.norm_act

    def wrong(*args: object) -> tuple[Tensor, Tensor]:
        y, stats = right(*args)
        return y + 0.01, stats

    monkeypatch.setattr(triton_ops, "norm_act", wrong)
    assert triton_ops.self_test(torch.device("cpu")) > triton_ops.MAX_ERROR


def test_without_a_gpu_a_warning_gives_the_reason() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.warns(RuntimeWarning, match="Triton kernels cannot be used"):
        assert not triton_ops.load(torch.device("cuda:1"))
    triton_ops.load.cache_clear()


def test_each_gpu_is_tested_that_networks_use(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[str] = []

    def self_test(device: torch.device) -> float:
        tested.append(str(device))
        return 0.0

    monkeypatch.setattr(triton_ops, "self_test", self_test)
    triton_ops.load.cache_clear()
    for name in ("cuda:1", "cuda:0", "cuda:1"):
        agent = make_agent()
        monkeypatch.setattr(agent, "device", torch.device(name))
        assert _use_native_layers(agent.accelerable(), fused=False)
    assert tested == ["cuda:1", "cuda:0"]
    triton_ops.load.cache_clear()


def test_compiled_updates_with_the_operations_equal_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The layers use the operations in compiled functions, also of joint heads and gradients."""
    monkeypatch.setattr(gpu_forms, "wanted", lambda _device: True)
    plain, compiled = make_agent(), make_agent()
    NATIVE._replace(load=lambda _device: True).install([compiled.model], compiled.device)
    for name in ("model_loss", "policy_loss"):
        function = getattr(compiled.functions, name)
        version = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)
        setattr(compiled.functions, name, version)
    batch = random_batch(plain.config, plain.env)
    noise = plain.train_noise.update(plain.config.batch_size)
    metrics = [agent.update_on(batch, noise)[0] for agent in (plain, compiled)]
    torch.testing.assert_close(metrics[1], metrics[0], rtol=TOLERANCE, atol=TOLERANCE)
    states = [agent.model.state_dict() for agent in (plain, compiled)]
    torch.testing.assert_close(states[1], states[0], rtol=TOLERANCE, atol=TOLERANCE)


def test_the_activations_are_those_of_the_layers() -> None:
    h = drawn(1, 6, 16).detach()
    ones, zeros = torch.ones(1, 16), torch.zeros(1, 16)
    normed = F.layer_norm(h, (16,))
    for group, expected in ((0, mish(normed)), (8, simnorm(normed, 8, 0.5))):
        found = triton_ops.plain(h, zeros, ones, zeros, None, group, 0.5)[0]
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
