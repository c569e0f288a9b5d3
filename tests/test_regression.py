"""Test regression: two-hot by hand, cross-entropy from its definition, squared errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tdmpc2.regression import DiscreteRegression, make_regression, symexp, symlog
from tests.helpers import tiny_config

BINS = DiscreteRegression(101, -10.0, 10.0)
# Five bins at symlog values −2, −1, 0, 1, 2.
FIVE = DiscreteRegression(5, -2.0, 2.0)


def value_at(symlog_value: float) -> float:
    """Return the scalar with the given symlog."""
    return math.copysign(math.exp(abs(symlog_value)) - 1, symlog_value)


def test_symlog_and_symexp_by_hand() -> None:
    x = torch.tensor([0.0, math.e - 1, 1 - math.e, 99.0])
    y = torch.tensor([0.0, 1.0, -1.0, math.log(100.0)])
    torch.testing.assert_close(symlog(x), y)
    torch.testing.assert_close(symexp(y), x)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (-2.0, [1, 0, 0, 0, 0]),
        (-1.75, [0.75, 0.25, 0, 0, 0]),
        (0.0, [0, 0, 1, 0, 0]),
        (0.4, [0, 0, 0.6, 0.4, 0]),
        (1.9, [0, 0, 0, 0.1, 0.9]),
        (2.0, [0, 0, 0, 0, 1]),  # the upper neighbor has no mass
        (7.0, [0, 0, 0, 0, 1]),  # beyond the last bin
        (-7.0, [1, 0, 0, 0, 0]),
    ],
)
def test_two_hot_by_hand(place: float, expected: list[float]) -> None:
    encoding = FIVE.two_hot(torch.tensor([value_at(place)]))
    torch.testing.assert_close(encoding, torch.tensor([expected]).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("x", [value_at(10.0), 1e6, -1e6, float("inf"), float("-inf")])
def test_two_hot_at_the_ends_of_the_papers_bins(x: float) -> None:
    expected = torch.zeros(1, 101)
    expected[0, 100 if x > 0 else 0] = 1
    torch.testing.assert_close(BINS.two_hot(torch.tensor([x])), expected, rtol=0, atol=1e-5)


def test_decoding_takes_the_expectation_in_symlog_space() -> None:
    """Half the mass at symlog 0 and half at 2: symexp(1) = e − 1, not the mean of the values."""
    logits = torch.full((1, 5), -1e9)
    logits[0, 2] = logits[0, 4] = 3.0
    torch.testing.assert_close(FIVE.decode(logits), torch.tensor([math.e - 1]))


def test_a_head_at_zero_predicts_exactly_zero() -> None:
    assert BINS.decode(torch.zeros(3, 101)).abs().max() < 1e-6


@pytest.mark.parametrize("x", [-400.0, -1.0, -0.03, 0.0, 0.5, 3.0, 1000.0])
def test_log_of_two_hot_decodes_to_the_scalar(x: float) -> None:
    logits = torch.log(BINS.two_hot(torch.tensor([x])) + 1e-12)
    torch.testing.assert_close(BINS.decode(logits), torch.tensor([x]), rtol=1e-4, atol=1e-5)


def test_cross_entropy_from_its_definition() -> None:
    """Compare with −Σ two_hot·ln softmax, with the two-hot encoding computed bin by bin."""
    scalars = [-1e6, -7.3, -0.2, 0.0, 0.9, 12.0, 300.0, 1e6]
    logits = 3 * torch.randn(8, 101, generator=torch.Generator().manual_seed(0))
    losses = BINS.loss(logits, torch.tensor(scalars))
    for x, row, loss in zip(scalars, logits.double(), losses, strict=True):
        place = (min(max(math.copysign(math.log1p(abs(x)), x), -10), 10) + 10) / 0.2
        lower = min(math.floor(place + 1e-9), 100)
        target = torch.zeros(101, dtype=torch.float64)
        target[lower] += 1 - (place - lower)
        if lower < 100:
            target[lower + 1] += place - lower
        expected = -(target * (row - torch.logsumexp(row, 0))).sum()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_of_the_cross_entropy_is_softmax_minus_target() -> None:
    logits = torch.randn(4, 101, generator=torch.Generator().manual_seed(1), requires_grad=True)
    scalars = torch.tensor([-3.0, 0.1, 8.0, 40.0])
    BINS.loss(logits, scalars).sum().backward()
    expected = torch.softmax(logits.detach(), -1) - BINS.two_hot(scalars)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)


def test_nan_becomes_a_nan_loss_rather_than_a_bad_index() -> None:
    loss = BINS.loss(torch.zeros(2, 101), torch.tensor([float("nan"), 0.0]))
    assert loss.isnan().tolist() == [True, False]


OUTPUT = torch.tensor([[2.0], [-1.0], [0.0]])
TARGET = torch.tensor([5.0, -3.0, 0.0])


@pytest.mark.parametrize(
    ("regression", "decoded", "loss"),
    [
        (
            "symlog_mse",
            [math.e**2 - 1, 1 - math.e, 0.0],
            [(2 - math.log(6)) ** 2, (math.log(4) - 1) ** 2, 0.0],
        ),
        ("mse", [2.0, -1.0, 0.0], [9.0, 4.0, 0.0]),
    ],
)
def test_continuous_regression(regression: str, decoded: list[float], loss: list[float]) -> None:
    ours = make_regression(tiny_config(regression=regression))
    assert ours.out_dim == 1
    torch.testing.assert_close(ours.decode(OUTPUT), torch.tensor(decoded))
    torch.testing.assert_close(ours.loss(OUTPUT, TARGET), torch.tensor(loss))


def test_losses_keep_leading_dimensions() -> None:
    """Outputs of an ensemble are `(N, H, B, out)`, targets `(N, H, B)`."""
    target = torch.zeros(5, 3, 2)
    for name, out_dim in (("discrete", 101), ("symlog_mse", 1), ("mse", 1)):
        regression = make_regression(tiny_config(regression=name))
        output: Tensor = torch.zeros(5, 3, 2, out_dim)
        assert regression.loss(output, target).shape == (5, 3, 2)
        assert regression.decode(output).shape == (5, 3, 2)
