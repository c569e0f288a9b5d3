"""The places of values in descending order, by comparing pairs."""

from __future__ import annotations

import torch

from tdmpc2.common.numerics.ranking import places


def test_comparing_pairs_equals_sorting() -> None:
    value = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    order = torch.argsort(value, descending=True)
    assert torch.equal(places(value), torch.argsort(order))


def test_of_equal_values_the_first_comes_first() -> None:
    value = torch.tensor([[1.0, 3.0, 1.0, 3.0, -torch.inf, torch.inf]])
    assert places(value).tolist() == [[3, 1, 4, 2, 5, 0]]
