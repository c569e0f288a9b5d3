"""Seeds derived from the seed of a run, one independent seed per purpose."""

from __future__ import annotations

import random
import zlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed for one purpose that is independent of the seeds for other purposes.

    Args:
        seed: seed of the run.
        *names: name of the purpose, e.g. `("evaluation", 3)`.

    Returns:
        An integer in 0..2^32 − 1, the range that every library accepts.
    """
    entropy = [zlib.crc32(str(name).encode()) for name in names]
    return int(np.random.SeedSequence([seed, *entropy]).generate_state(1)[0])


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch.

    This project does not use them; third-party code that does becomes repeatable.
    """
    import torch  # here, because `derive_seed` does not need it

    random.seed(seed)
    np.random.seed(derive_seed(seed, "numpy"))
    torch.manual_seed(derive_seed(seed, "torch"))
