"""Test the noise of an agent: shapes, distributions, and the fields that each flag needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import NoiseSource
from tests.helpers import tiny_config


@pytest.mark.parametrize(("action_dim", "iterations"), [(6, 6), (19, 6), (20, 8), (38, 8)])
def test_shapes_of_the_noise(action_dim: int, iterations: int) -> None:
    source = NoiseSource(TDMPC2Config.make(), action_dim, False, torch.Generator())
    noise = source.plan(2, explore=True)
    assert noise.policy.shape == (3, 2, 24, action_dim)
    assert noise.samples.shape == (iterations, 3, 2, 488, action_dim)
    assert noise.terminal_policy.shape == (iterations, 2, 512, action_dim)
    assert noise.heads.shape == (iterations, 2)
    assert noise.elite.shape == (2, 64)
    assert noise.action.shape == (2, action_dim)
    assert noise.dropout is None
    assert noise.shift is None


@pytest.mark.parametrize("num_q", [1, 2, 3, 5, 10])
def test_pairs_of_q_functions(num_q: int) -> None:
    """Pairs of Q-functions are uniform; none are sampled if all Q-functions are used."""
    source = NoiseSource(tiny_config(num_q=num_q), 2, False, torch.Generator().manual_seed(0))
    draws = [source.update(1) for _ in range(400)]
    if num_q <= 2:
        assert all(d.target_heads is None and d.policy_heads is None for d in draws)
        assert source.plan(1, explore=True).heads is None
        return
    for pairs in ([d.target_heads for d in draws], [d.policy_heads for d in draws]):
        counts = np.zeros((num_q, num_q))
        for i, j in torch.stack(pairs).tolist():
            counts[i, j] += 1
        expected = 400 / (num_q * (num_q - 1))
        off_diagonal = counts[~np.eye(num_q, dtype=bool)]
        assert not counts.diagonal().any()
        assert abs(off_diagonal - expected).max() < 5 * expected**0.5


def test_dropout_factors() -> None:
    """Factors are 0 with probability p, else 1/(1 − p), only where `dropout_in` requires them."""
    expected = {
        "model_loss": (True, False, False),
        "model_and_policy_loss": (True, False, True),
        "everywhere": (True, True, True),
    }
    for place, present in expected.items():
        config = tiny_config(dropout=0.25, dropout_in=place, num_q=5, mlp_dim=64)
        source = NoiseSource(config, 2, False, torch.Generator().manual_seed(0))
        update, planned = source.update(8), source.plan(2, explore=False)
        masks = (update.model_dropout, update.target_dropout, update.policy_dropout)
        assert tuple(mask is not None for mask in masks) == present
        shapes = [(5, 3, 8, 64), (2, 3, 8, 64), (2, 4, 8, 64)]
        for mask, shape in zip(masks, shapes, strict=True):
            if mask is None:
                continue
            assert mask.shape == shape
            assert (mask.unique() == torch.tensor([0.0, 4 / 3])).all()
            dropped = (mask == 0).float().mean().item()
            assert dropped == pytest.approx(0.25, abs=5 * 0.43 / mask.numel() ** 0.5)
        assert (planned.dropout is not None) == (place == "everywhere")
    assert planned.dropout.shape == (2, 2, 2, 12, 64)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_every_unit_is_dropped_alone(p: float) -> None:
    """All of 20 units are dropped equally often, and neighbors independently."""
    config = tiny_config(dropout=p)
    source = NoiseSource(config, 2, False, torch.Generator().manual_seed(0))
    num = 4000
    dropped = torch.stack([source._dropout(4, 5).flatten() == 0 for _ in range(num)]).double()
    both = dropped[:, 1:] * dropped[:, :-1]
    for events, chance in ((dropped, p), (both, p * p)):
        error = (events.mean(0) - chance).abs().max()
        assert error < 5 * (chance * (1 - chance) / num) ** 0.5


def test_without_dropout_there_are_no_factors() -> None:
    config = tiny_config(dropout=0.0, dropout_in="everywhere")
    source = NoiseSource(config, 2, False, torch.Generator())
    assert source.plan(1, explore=True).dropout is None
    assert source.update(4).model_dropout is None


def test_pixel_shifts_are_uniform_over_a_pad_of_three() -> None:
    source = NoiseSource(tiny_config(), 2, True, torch.Generator().manual_seed(0))
    shift = source.update(500).shift
    assert shift.shape == (4, 500, 2)
    counts = torch.bincount(shift.flatten(), minlength=7)
    assert len(counts) == 7
    assert (counts - 4000 / 7).abs().max() < 5 * (4000 / 7) ** 0.5
    assert source.plan(3, explore=False).shift.shape == (3, 2)
