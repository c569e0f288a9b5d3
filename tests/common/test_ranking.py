"""The largest values of each row, by sorting and by comparing pairs."""

from __future__ import annotations

import pytest
import torch

from tdmpc2.common.numerics.ranking import largest, ranked


@pytest.mark.parametrize("num", [1, 7, 40])
def test_comparing_pairs_equals_sorting(num: int) -> None:
    value = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    values, index = torch.sort(value, descending=True)
    assert torch.equal(ranked(value, num), index[:, :num])
    assert torch.equal(largest(value, num)[0], values[:, :num])


def test_of_equal_values_the_first_comes_first() -> None:
    value = torch.tensor([[1.0, 3.0, 1.0, 3.0, -torch.inf, torch.inf]])
    assert ranked(value, 6).tolist() == [[5, 1, 3, 0, 2, 4]]
