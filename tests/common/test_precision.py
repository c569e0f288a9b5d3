"""bfloat16 matrix multiplications by rounding: the same numbers as native autocast."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from tdmpc2.common.numerics import precision
from tdmpc2.common.numerics.precision import RoundedProducts, products_in, round_to_bf16

ULP = 2.0**-8  # relative precision of bfloat16; another order of summation may change the last bit


def test_rounding_is_that_of_a_conversion() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, generator=generator) * torch.logspace(-30, 30, 100_000)
    x = torch.cat([x, torch.tensor([0.0, -0.0, 1.0, 1 + ULP / 2 + 1e-6, -(2.0**100)])])
    assert torch.equal(round_to_bf16(x), x.bfloat16().float())
    # A value halfway between two neighbors may be rounded to either.
    ties = torch.tensor([1.0 + ULP, -1.0 - ULP, 3.0 + 2 * ULP])
    assert (round_to_bf16(ties) - ties).abs().tolist() == [ULP, ULP, 2 * ULP]
    assert round_to_bf16(torch.tensor([float("nan")])).isnan().all()


def both(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> list[list[Tensor]]:
    """Return result and gradients of a product by rounding and by autocast, as float32."""
    found = []
    for context in (RoundedProducts(), torch.autocast("cpu", torch.bfloat16)):
        generator = torch.Generator().manual_seed(1)
        inputs = [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]
        with context:
            out = function(*inputs).float()
        weight = torch.randn(out.shape, generator=generator)
        found.append([out, *torch.autograd.grad((weight * out).sum(), inputs)])
    return found


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (F.linear, [(7, 33), (5, 33), (5,)]),
        (lambda x, w, b: F.linear(x, w, bias=b), [(2, 7, 33), (5, 33), (5,)]),
        (torch.bmm, [(3, 7, 33), (3, 33, 5)]),
        (torch.baddbmm, [(3, 1, 5), (3, 7, 33), (3, 33, 5)]),
        (lambda a, b: a @ b, [(7, 33), (33, 5)]),
        (F.conv2d, [(2, 3, 9, 9), (4, 3, 3, 3), (4,)]),
    ],
)
def test_products_and_gradients_are_those_of_autocast(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> None:
    ours, theirs = both(function, *shapes)
    for a, b in zip(ours, theirs, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=ULP, atol=ULP * scale)
        assert torch.equal(a, a.bfloat16().float())
    # They differ from the float32 results.
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        plain = function(*[torch.randn(s, generator=generator) for s in shapes])
    assert (ours[0] - plain).abs().max() > 1e-3


def test_everything_else_is_left_alone() -> None:
    x = torch.randn(5, 8)
    with RoundedProducts():
        assert torch.equal(F.layer_norm(x, (8,)), torch.layer_norm(x, (8,)))
        assert torch.equal(x * x + 1, x.square() + 1)


@pytest.mark.xdist_group("compile")
def test_compiled_and_vectorised_products_are_rounded_too() -> None:
    """Compilers must not remove the rounding."""
    layer, x = nn.Linear(64, 32), torch.randn(4, 6, 64)

    def call(x: Tensor) -> Tensor:
        with RoundedProducts():
            return torch.tanh(layer(torch.tanh(x)))

    expected = call(x)
    assert (expected - torch.tanh(layer(torch.tanh(x)))).abs().max() > 1e-4
    torch.testing.assert_close(torch.compile(call)(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(vmap(call)(x), expected, rtol=0, atol=1e-6)
    compiled = torch.compile(call)
    gradients = []
    for function in (call, compiled):
        function(x).square().sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
        layer.weight.grad = None
    torch.testing.assert_close(gradients[1], gradients[0], rtol=ULP, atol=1e-4)


def test_chosen_by_device_and_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: ["avx512f"])
    assert isinstance(products_in("bf16", "cpu"), RoundedProducts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a GPU
        assert isinstance(products_in("bf16", "cuda"), torch.autocast)
    for flags in (["avx512_bf16"], ["amx_bf16"], ["bf16"], []):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: flags)
        assert isinstance(products_in("bf16", "cpu"), torch.autocast)
    assert not isinstance(products_in("fp32", "cpu"), RoundedProducts | torch.autocast)
