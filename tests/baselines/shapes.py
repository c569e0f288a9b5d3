"""Shapes and batches for the tests of the baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay.types import Batch, Sequences

WALKER = EnvSpec((24,), 6, (500,), (2,), (6,), ("walker-walk",))
DOG = EnvSpec((223,), 38, (500,), (2,), (38,), ("dog-run",))
HUMANOID = EnvSpec((67,), 21, (500,), (2,), (21,), ("humanoid-run",))
SMALL = EnvSpec((5,), 2, (50,), (2,), (2,), ("task",))
TWO_TASKS = EnvSpec((5,), 3, (50, 100), (2, 2), (3, 1), ("one", "two"))


class Random:
    """Random tensors from one generator."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal samples."""
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform samples in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)


def random_batch(env: EnvSpec, length: int, size: int, seed: int = 0) -> Batch:
    """Return sub-trajectories, of which every third terminates; tasks alternate."""
    random = Random(seed)
    terminated = torch.zeros(length, size)
    terminated[-1, ::3] = 1.0
    task = torch.arange(size) % env.num_tasks
    valid = torch.arange(env.action_dim) < torch.tensor(env.action_dims)[task][:, None]
    return Batch(
        obs=random.normal(length + 1, size, *env.obs_shape),
        action=torch.tanh(random.normal(length, size, env.action_dim)) * valid,
        reward=random.normal(length, size),
        terminated=terminated,
        task=task if env.num_tasks > 1 else None,
    )


def random_sequences(env: EnvSpec, length: int, size: int, seed: int = 0) -> Sequences:
    """Return sequences, of which the second contains a new episode from time step 2 on."""
    random = Random(seed)
    first, terminated = torch.zeros(length, size), torch.zeros(length, size)
    first[0], first[2, 1] = 1.0, 1.0
    terminated[1, 1] = 1.0
    action = torch.tanh(random.normal(length, size, env.action_dim))
    action[2, 1] = 0.0
    return Sequences(
        obs=random.normal(length, size, *env.obs_shape),
        action=action,
        reward=random.normal(length, size) * (1 - first),
        first=first,
        terminated=terminated,
    )
