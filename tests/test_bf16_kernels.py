"""Test the bfloat16 kernels against plain PyTorch with rounded factors, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2 import kernels
from tdmpc2.kernels import bf16
from tdmpc2.layers import mish, simnorm

pytestmark = pytest.mark.skipif(
    bf16.built() and not bf16.load(), reason="oneDNN does not multiply tiled bfloat16 on this CPU"
)

ROUNDING = 2.0**-8  # largest relative error of a number rounded to bfloat16
PARAMS = ((), (), ())  # bias, gamma, beta
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    **{"none": lambda x: x, "mish": mish, "simnorm": lambda x: simnorm(x, 8, 0.7)},
    **{"relu": F.relu, "elu": F.elu, "tanh": torch.tanh},
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def tiled(weight: Tensor) -> Tensor:
    """Return tiled weights of `(K, O, I)`."""
    copy = torch.full((weight.shape[0], torch.ops.tdmpc2.bf16_size(*weight.shape[1:])), torch.nan)
    copy = copy.bfloat16()
    torch.ops.tdmpc2.bf16_tile_(copy, weight, None)
    return copy


def definition(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, activation: str
) -> Tensor:
    """Compute a layer in float64 from rounded factors; `(K, ...)` for K layers."""
    x = rounded(x) @ rounded(weight).mT + bias.double().unsqueeze(-2)
    x = F.layer_norm(x, x.shape[-1:]) * gamma.double().unsqueeze(-2) + beta.double().unsqueeze(-2)
    return PLAIN[activation](x)


def assert_layer(ours: Tensor, expected: Tensor, activation: str) -> None:
    if activation != "simnorm":
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), expected, rtol=ROUNDING, atol=1e-5)
    else:
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["mish", "simnorm"])
@pytest.mark.parametrize("heads", [None, [3, 1]], ids=str)
@pytest.mark.parametrize("rows", [256, 100, 1])
@pytest.mark.parametrize("shared", [True, False], ids=["same input", "an input each"])
@pytest.mark.parametrize("in_dim", [37, 64])
def test_dense_is_a_whole_layer(
    in_dim: int, shared: bool, rows: int, heads: list[int] | None, activation: str
) -> None:
    num = 4 if heads is None else 2
    weight, bias, gamma, beta = (
        drawn(4, 160, *s, seed=i) for i, s in enumerate(((in_dim,), *PARAMS))
    )
    x = drawn(*(() if shared else (num,)), rows, in_dim, seed=7)
    index = slice(None) if heads is None else heads
    chosen = None if heads is None else torch.tensor(heads)
    expected = definition(x, *(p[index] for p in (weight, bias, gamma, beta)), activation)
    options = {"heads": chosen, "activation": activation, "tau": 0.7}
    for inputs in ([x], [x.bfloat16()], [x[..., :30], x[..., 30:]]):
        if len(inputs) == 1 or shared:
            ours = bf16.dense(inputs, tiled(weight), bias, gamma, beta, **options)
            assert_layer(ours, expected, activation)


@pytest.mark.parametrize(("rows", "in_dim", "out_dim"), [(512, 512, 512), (70, 64, 40)])
def test_product_without_anything_else(rows: int, in_dim: int, out_dim: int) -> None:
    x, weight = drawn(rows, in_dim).bfloat16(), drawn(out_dim, in_dim, seed=1)
    ours = torch.ops.tdmpc2.bf16_product(x, tiled(weight[None]), out_dim)
    expected = x.double() @ rounded(weight).mT
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("out_dim", [32, 544, 1024])
@pytest.mark.parametrize("in_dim", [5, 512, 2048])
def test_all_sizes_of_weights(in_dim: int, out_dim: int) -> None:
    """Several panels of columns, also narrow ones for many rows."""
    x, params = drawn(70, in_dim), [drawn(out_dim, seed=i) for i in (1, 2, 3)]
    weight = drawn(out_dim, in_dim, seed=4)
    ours = bf16.dense([x], tiled(weight[None]), *params, activation="simnorm", tau=0.7)
    assert_layer(ours, definition(x, weight, *params, "simnorm"), "simnorm")


def test_shared_inputs_are_multiplied_once() -> None:
    """The rows of an environment share its latent and task embedding."""
    latent, task, action = drawn(3, 1, 40), drawn(3, 1, 10, seed=1), drawn(3, 90, 7, seed=2)
    weight, params = drawn(64, 57, seed=3), [drawn(64, seed=i) for i in (4, 5, 6)]
    weights = tiled(weight[None])
    own = latent.expand(3, 90, 40)
    x = torch.cat([own, task.expand(3, 90, 10), action], -1)
    expected = definition(x, weight, *params, "mish")
    for inputs in ([latent, task, action], [own, task, action]):
        ours = bf16.dense(inputs, weights, *params, activation="mish")
        assert ours.shape == (3, 90, 64)
        assert_layer(ours, expected, "mish")


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


def test_mish_of_all_sizes() -> None:
    """A layer with γ = 0 returns Mish(β); the error is that of rounding, or below 1e-5."""
    x = torch.cat([torch.linspace(-40, 40, 3200), torch.tensor([-3e38, -1e4, 0.0, 1e4, 3e38])])
    x = F.pad(x, (0, -len(x) % 32))
    weight, zeros = tiled(drawn(1, len(x), 32, seed=1)), torch.zeros_like(x)
    ours = bf16.dense([drawn(1, 32)], weight, x, zeros, x, activation="mish")
    torch.testing.assert_close(ours[0].double(), mish(x.double()), rtol=ROUNDING, atol=1e-5)


def test_nan_is_not_hidden() -> None:
    x, ones = torch.ones(4, 32), torch.ones(32)
    x[1, 3] = torch.nan
    weights = tiled(drawn(1, 32, 32))
    for activation in kernels.ACTIVATIONS:
        params = [ones] if activation == "none" else [ones, ones, ones]
        y = bf16.dense([x], weights, *params, activation=activation)
        assert y[1].isnan().all()
        assert y[[0, 2, 3]].isfinite().all()


def test_extreme_values_stay_finite() -> None:
    """Test units with differences as large as float32 norm parameters allow."""
    x, weight, ones = 1e4 * drawn(16, 32), drawn(64, 32, seed=1), torch.ones(64)
    for activation in ("mish", "simnorm", "elu", "tanh"):
        params = (ones, 1e3 * ones, ones)
        y = bf16.dense([x], tiled(weight[None]), *params, activation=activation, tau=0.7)
        assert y.isfinite().all()
        expected = definition(x, weight, *params, activation)
        torch.testing.assert_close(y.double(), expected, rtol=ROUNDING, atol=1e-2)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_rows(threads: int) -> None:
    before = torch.get_num_threads()
    weights, ones, x = tiled(drawn(1, 64, 48)), torch.ones(64), drawn(300, 48, seed=1)
    try:
        outcomes = []
        for num in (1, threads):
            torch.set_num_threads(num)
            outcomes.append(bf16.dense([x], weights, ones, ones, ones, activation="mish"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*outcomes)


def test_only_suitable_inputs_use_tiled_weights() -> None:
    weights, z, a = torch.ones(1), torch.ones(2, 1, 6), torch.ones(2, 9, 3)
    with torch.no_grad():
        assert bf16.usable_tiled([z], weights)
        assert bf16.usable_tiled([z, a], weights)
        assert bf16.usable_tiled([a, a], weights)
        assert not bf16.usable_tiled([z], None)
        assert not bf16.usable_tiled([z[..., :5], a], weights)  # begins at an odd column
        assert not bf16.usable_tiled([torch.ones(4, 2, 9, 6), z], weights)  # broadcast over time
    assert not bf16.usable_tiled([z], weights)  # with gradients


# --- gradients -----------------------------------------------------------------------

LAYERS = {
    "one": {"lead": (), "sizes": (64, 6), "out": 96},
    "odd sizes": {"lead": (), "sizes": (5, 3), "out": 32},
    "narrow inputs of 32 columns": {"lead": (), "sizes": (24, 8), "out": 32},
    "narrow inputs of 64 columns": {"lead": (), "sizes": (24, 40), "out": 32},
    "more weights than the cache holds": {"lead": (), "sizes": (1024,), "out": 1056},
    "simnorm": {"lead": (), "sizes": (64,), "out": 64, "activation": "simnorm"},
    "relu": {"lead": (), "sizes": (40, 6), "out": 64, "activation": "relu", "norm": False},
    "elu": {"lead": (), "sizes": (64,), "out": 64, "activation": "elu", "norm": False},
    "tanh": {"lead": (), "sizes": (40, 6), "out": 64, "activation": "tanh"},
    "output": {"lead": (), "sizes": (64,), "out": 101, "activation": "none", "norm": False},
    "ensemble": {"lead": (4,), "sizes": (40, 6), "out": 64, "dropout": True},
    "ensemble, an input each": {"lead": (4,), "sizes": (64,), "out": 64, "each": True},
    "outputs of an ensemble": {
        **{"lead": (4,), "sizes": (64,), "out": 101},
        **{"each": True, "activation": "none", "norm": False},
    },
}


def relative_error(ours: Tensor, expected: Tensor) -> float:
    return float((ours.double() - expected).norm() / expected.norm())


def plain_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: Sequence[Tensor],
    factor: Tensor | None,
    activation: str,
) -> Tensor:
    """Compute a layer in float64 with plain PyTorch, from rounded factors.

    Rounding has the gradient 1. Without it, a few units would be on the other side of ReLU's kink.
    """
    x, weight = (v.double() + (rounded(v) - v.double()).detach() for v in (x, weight))
    y = x @ weight.mT + bias.double().unsqueeze(-2)
    if factor is not None:
        y = y * factor
    if norm:
        gamma, beta = (p.double().unsqueeze(-2) for p in norm)
        y = F.layer_norm(y, y.shape[-1:]) * gamma + beta
    return PLAIN[activation](y)


@pytest.mark.parametrize("rows", [256, 70, 1101])
@pytest.mark.parametrize("rounded_input", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_of_a_layer(name: str, rounded_input: bool, rows: int) -> None:
    """Check that the relative error is a few roundings, against float64.

    Gradients of the weights are sums over parts of 512 rows.
    """
    case: dict[str, Any] = {"activation": "mish", "norm": True, "dropout": False, "each": False}
    case |= LAYERS[name]
    lead, out = case["lead"], case["out"]
    dtype = torch.bfloat16 if rounded_input else torch.float32
    shapes = [(*(lead if case["each"] else ()), rows, size) for size in case["sizes"]]
    parts = [drawn(*s, seed=i).to(dtype).requires_grad_() for i, s in enumerate(shapes)]
    weight = (drawn(*lead, out, sum(case["sizes"]), seed=3) / 8).requires_grad_()
    bias = drawn(*lead, out, seed=4).requires_grad_()
    norm = [drawn(*lead, out, seed=i).requires_grad_() for i in (5, 6) if case["norm"]]
    factor = (drawn(*lead, rows, out, seed=7) > -1).float() / 0.84 if case["dropout"] else None
    activation = case["activation"]
    y = bf16.layer(parts, weight, bias, *norm, factor=factor, activation=activation, tau=0.7)
    expected = plain_layer(torch.cat(parts, -1), weight, bias, norm, factor, activation)
    last = activation in ("none", "simnorm")
    assert y.dtype == (torch.float32 if last else torch.bfloat16)
    assert relative_error(y.detach(), expected.detach()) < ROUNDING
    grad = drawn(*y.shape, seed=8)
    variables = [*parts, weight, bias, *norm]
    ours = torch.autograd.grad(y, variables, grad.to(y.dtype))
    for gradient, reference in zip(
        ours, torch.autograd.grad(expected, variables, grad.double()), strict=True
    ):
        assert gradient.shape == reference.shape
        assert relative_error(gradient, reference.double()) < 2 * ROUNDING


def test_only_the_gradients_that_are_needed() -> None:
    """As in the policy loss: chosen layers without gradient, of the actions only."""
    z, a = drawn(50, 32), drawn(50, 6, seed=1).requires_grad_()
    weight, heads = drawn(5, 64, 38, seed=2), torch.tensor([3, 0])
    params = [drawn(5, 64, seed=i)[heads] for i in (3, 4, 5)]
    y = bf16.layer([z, a], weight, *params, activation="mish", heads=heads)
    (ours,) = torch.autograd.grad(y, [a], torch.ones_like(y))
    bias, *norm = params
    expected = plain_layer(torch.cat([z, a], -1), weight[heads], bias, norm, None, "mish")
    (reference,) = torch.autograd.grad(expected, [a], torch.ones_like(expected))
    assert relative_error(ours, reference.double()) < 2 * ROUNDING


def test_combinations_without_a_gradient_are_refused() -> None:
    weights, ones = tiled(drawn(1, 32, 32)), torch.ones(32)
    for params, activation in (
        ([ones], "mish"),
        ([ones], "simnorm"),
        ([ones, ones, ones], "none"),
    ):
        with pytest.raises(RuntimeError, match="a norm needs an activation"):
            bf16.dense([drawn(4, 32)], weights, *params, activation=activation)


def test_an_input_that_is_broadcast_over_time() -> None:
    """The gradient of a task embedding is the sum over time."""
    z, e = drawn(4, 30, 32), drawn(30, 8, seed=1).requires_grad_()
    weight, params = drawn(64, 40, seed=2) / 8, [drawn(64, seed=i) for i in (3, 4, 5)]
    y = bf16.layer([z, e], weight, *params, activation="mish")
    grad = drawn(4, 30, 64, seed=6)
    (ours,) = torch.autograd.grad(y, [e], grad.bfloat16())
    x = torch.cat([z, e.expand(4, 30, 8)], -1)
    expected = plain_layer(x, weight, params[0], params[1:], None, "mish")
    (reference,) = torch.autograd.grad(expected, [e], grad.double())
    assert relative_error(ours, reference.double()) < 2 * ROUNDING


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("rows", [300, 2901])
def test_gradients_are_sums_over_threads(rows: int, threads: int) -> None:
    """Those of the input are bit-identical; those of parameters are equal up to rounding."""
    before = torch.get_num_threads()
    x, weight = drawn(rows, 40).requires_grad_(), drawn(64, 40, seed=1).requires_grad_()
    params = [drawn(64, seed=i).requires_grad_() for i in (2, 3, 4)]
    outcomes = []
    try:
        for num in (1, threads, threads):
            torch.set_num_threads(num)
            y = bf16.layer([x], weight, *params, activation="mish")
            outcomes.append(torch.autograd.grad(y, [x, weight, *params], torch.ones_like(y)))
    finally:
        torch.set_num_threads(before)
    alone, shared, again = outcomes
    assert torch.equal(alone[0], shared[0])
    for first, second, third in zip(alone, shared, again, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
        assert torch.equal(second, third)
