"""The largest values of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms


def largest(value: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row in descending order, and their indices.

    Args:
        value: `(B, N)`, without NaN.
        num: number E of values.

    Returns:
        Values `(B, E)` and indices `(B, E)`.
    """
    if not gpu_forms.wanted(value.device):
        return torch.topk(value, num, dim=1)
    index = ranked(value, num)
    return value.gather(1, index), index


def ranked(value: Tensor, num: int) -> Tensor:
    """Return the indices `(B, num)` of the largest values of each row, by comparing all pairs.

    On an H200 this takes 3 µs for 64 of 512 values; `torch.topk`, which sorts, takes 12 µs. Of
    equal values, the first comes first.

    Args:
        value: `(B, N)`, without NaN.
        num: number of indices.
    """
    place = torch.arange(value.shape[1], device=value.device)
    one, other = value[:, :, None], value[:, None, :]
    before = (other > one) | ((other == one) & (place < place[:, None]))
    rank = before.sum(-1)
    wanted = torch.arange(num, device=value.device)[:, None]
    return torch.where(rank[:, None] == wanted, place, 0).sum(-1)
