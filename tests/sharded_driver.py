"""A process of test_sharded_update: `torchrun -m tests.sharded_driver FOLDER VARIANT …`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tdmpc2.common.numerics.distributed import join_world
from tdmpc2.sharded_update import SplitUpdate
from tests.test_sharded_update import updated

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *variants = sys.argv[1:]
    with join_world(torch.device("cpu")) as world:
        outcomes = {
            variant: updated(variant, lambda agent: SplitUpdate(agent, world, 2))
            for variant in variants
        }
        torch.save(outcomes, Path(folder) / f"{world.rank}.pt")
