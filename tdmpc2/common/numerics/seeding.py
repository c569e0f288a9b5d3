"""One seed per run, and independent streams derived from it by name."""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for one purpose, independent of those for others.

    Args:
        seed: of the run.
        *names: what the stream is for, e.g. `("evaluation", 3)`.

    Returns:
        An integer in 0..2^32 − 1 (what every library accepts).
    """
    entropy = [zlib.crc32(str(name).encode()) for name in names]
    return int(np.random.SeedSequence([seed, *entropy]).generate_state(1)[0])


def seed_globals(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch.

    No code of ours draws from them; third-party code that does is then at least repeatable.
    """
    random.seed(seed)
    np.random.seed(derive_seed(seed, "numpy"))
    torch.manual_seed(derive_seed(seed, "torch"))
