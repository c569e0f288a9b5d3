"""Test updates with micro-batches, in one and two processes, against whole batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.replay.types import Batch
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.offline_trainer import OfflineSchedule, OfflineTrainer
from tdmpc2.sharded_update import SplitUpdate
from tests.helpers import THREE_TASKS, make_agent, random_batch, tiny_config

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "every Q-function, MSE": {"num_q": 2, "regression": "mse"},
    "dropout everywhere": {"dropout_in": "everywhere", "dropout": 0.2},
    "noisy prior": {"policy_prior": "gaussian_noise"},
    "learned entropy": {"entropy_form": "exact", "entropy_tuning": "target"},
}
ROWS, UPDATES = 24, 3


class Batches:
    """A replay buffer that returns fixed batches, whole or as a shard."""

    def __init__(self, agent: TDMPC2) -> None:
        self.agent, self.count = agent, 0

    def sample(self, size: int, length: int, part: slice = slice(None)) -> Batch:
        self.count += 1
        batch = random_batch(self.agent.config, self.agent.env, seed=self.count)
        assert batch.task is not None
        rows = (x[:, part] for x in (batch.obs, batch.action, batch.reward, batch.terminated))
        return Batch(*rows, task=batch.task[part])


def agent_of(variant: str) -> TDMPC2:
    """Return an agent for three tasks, with Q-functions that are not all zero."""
    config = tiny_config(task_dim=8, batch_size=ROWS, **VARIANTS[variant])
    agent = make_agent(config, THREE_TASKS)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in agent.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return agent


def result(agent: TDMPC2, metrics: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights, value scale and metrics after some updates."""
    return {**agent.model.state_dict(), "S": agent.value_scale, **metrics}


def updated(variant: str, learner: Any = None) -> dict[str, torch.Tensor]:
    agent = agent_of(variant)
    actor = agent if learner is None else learner(agent)
    replay = Batches(agent)
    for _ in range(UPDATES):
        metrics = actor.update(replay)
    return result(agent, metrics)


def assert_alike(ours: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == whole.keys()
    for name, value in whole.items():
        close = torch.isclose(ours[name], value, rtol=2e-4, atol=2e-5)
        assert close.all(), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("parts", [2, 6])
def test_parts_make_the_update_of_the_whole(variant: str, parts: int) -> None:
    ours = updated(variant, lambda agent: SplitUpdate(agent, World(), parts))
    assert_alike(ours, updated(variant))


def test_a_part_of_other_rows_makes_another_update() -> None:
    """The comparison fails if a micro-batch is left out."""
    agent = agent_of("paper")
    replay, split = Batches(agent), SplitUpdate(agent, World(), 2)
    for _ in range(UPDATES):
        batch, noise = replay.sample(ROWS, 3), agent.train_noise.update(ROWS)
        half = slice(0, ROWS // 2)
        batch = Batch(*(x[:, half] for x in batch[:4]), task=batch.task[half])  # type: ignore[index]
        metrics = split.update_on(batch, noise.rows(half))
    with pytest.raises(AssertionError):
        assert_alike(result(agent, metrics), updated("paper"))


def test_two_processes_make_the_update_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "tests.sharded_driver", str(tmp_path), *VARIANTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.keys() == VARIANTS.keys()
    for variant in VARIANTS:
        for name, value in first[variant].items():
            assert torch.equal(value, second[variant][name]), (variant, name)
        assert_alike(first[variant], updated(variant))


class Second(World):
    """The second of two processes, whose first one is not stopped."""

    def largest(self, number: int) -> int:
        return number


def test_agents_are_equal_after_an_evaluation_in_the_first_process(tmp_path: Path) -> None:
    """It projects the embeddings of all tasks, also of those that are not in the last batch."""
    first, second = agent_of("paper"), agent_of("paper")
    for agent in (first, second):
        assert agent.model.task_embedding is not None
        agent.model.task_embedding.data[1] = 2.0
    first.act(
        np.zeros((3, 5), np.float32), first=np.ones(3, bool), explore=False, task=np.arange(3)
    )
    schedule = OfflineSchedule(10, 60.0, 5, 1, 1)
    args: Any = (second, (), (), None, None, CheckpointStore(tmp_path), schedule)
    list(OfflineTrainer(*args, seed=1, world=Second(1, 2))._evaluate())
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(UserError, match="batch_size=24: must be a multiple of accumulate=5"):
        SplitUpdate(agent_of("paper"), World(), 5)
