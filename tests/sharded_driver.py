"""A process of test_sharded_update: `torchrun -m tests.sharded_driver VARIANT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tdmpc2.common.numerics.distributed import join_world
from tdmpc2.sharded_update import SplitUpdate
from tests.test_sharded_update import updated

if __name__ == "__main__":
    torch.set_num_threads(1)
    with join_world(torch.device("cpu")) as world:
        outcome = updated(sys.argv[1], lambda agent: SplitUpdate(agent, world, 2))
        torch.save(outcome, Path(sys.argv[2]) / f"{world.rank}.pt")
