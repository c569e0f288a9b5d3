"""Derived seeds and the global generators."""

from __future__ import annotations

import random

import numpy as np
import torch

from tdmpc2.common.numerics.seeding import derive_seed, seed_globals


def test_derived_seeds_are_fixed_numbers() -> None:
    """CRC-32 of each name appended to the seed, through NumPy's SeedSequence."""
    crc_of_digits = 0xCBF43926  # the published check value of CRC-32 for "123456789"
    expected = np.random.SeedSequence([7, crc_of_digits, crc_of_digits]).generate_state(1)[0]
    assert derive_seed(7, "123456789", 123456789) == int(expected)


def test_streams_differ_by_seed_name_and_order() -> None:
    seeds = {
        derive_seed(seed, *names)
        for seed in range(20)
        for names in [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", 0), ("a", 1)]
    }
    assert len(seeds) == 20 * 7
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)


def draws() -> tuple[float, float, float]:
    """Return one number from each global generator."""
    return random.random(), float(np.random.random()), torch.rand(()).item()


def test_global_generators_are_repeatable() -> None:
    seed_globals(3)
    first = draws()
    seed_globals(3)
    assert draws() == first
    seed_globals(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))
