"""Datasets and runs in which every number identifies its origin."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, Episode
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import BuildOptions
from tdmpc2.data.rows import assemble
from tdmpc2.data.writer import DatasetWriter
from tdmpc2.envs.tasks import get_task

TWO = ("cheetah-run", "walker-walk")
# Observation dimensions 24, 17, 5 and 4; action dimensions 6, 6, 1 and 2.
FOUR = ("walker-walk", "cheetah-run", "cartpole-swingup", "toy-pointmass-episodic")


def episode(task: str, number: int, length: int, *, terminated: bool = False) -> Episode:
    """Return an episode of known numbers: obs (number, time, 0.5 …), reward 32 · number + time."""
    row, time = get_task(task), np.arange(length + 1, dtype=np.float32)
    obs = np.full((length + 1, row.obs_dim), 0.5, np.float32)
    obs[:, 0], obs[:, 1] = number, time
    action = np.full((length, row.action_dim), -0.5, np.float32)
    action[:, 0] = time[:-1] / 128
    reward = (32 * number + time[:-1]).astype(np.float32)
    return Episode(obs, action, reward, terminated=terminated)


def make_dataset(
    folder: Path,
    episodes: Mapping[str, Sequence[Episode]],
    *,
    dtype: str = "float32",
    shard_bytes: int = 10**6,
) -> Dataset:
    """Write a dataset of the given episodes of each task."""
    tasks = [get_task(name) for name in episodes]
    with DatasetWriter(folder, None, tasks, {}, shard_mb=shard_bytes / 1e6) as writer:
        for task in tasks:
            shards = writer.open_task(task, dtype)
            for one in episodes[task.name]:
                lengths = np.array([len(one)])
                rows = assemble(one.obs, one.action, one.reward, lengths).astype(dtype)
                shards.add(rows, lengths, np.array([one.terminated]), lambda fault: str(fault.row))
            writer.finish_task(shards)
        return writer.finish({"command": "test"})


def four_tasks(folder: Path, **kwargs: Any) -> tuple[Dataset, dict[str, list[Episode]]]:
    """Write a dataset of four tasks with different dimensions and lengths; one task terminates."""
    lengths = {0: (9, 3, 14, 2), 1: (6,), 2: (11, 1, 4), 3: (5, 8, 3)}
    episodes = {
        task: [
            episode(task, 10 * i + j, length, terminated=i == 3 and j != 1)
            for j, length in enumerate(lengths[i])
        ]
        for i, task in enumerate(FOUR)
    }
    return make_dataset(folder, episodes, **kwargs), episodes


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def same(one: Batch, other: Batch) -> bool:
    """Return whether two batches are equal in all fields."""
    pairs = zip(one, other, strict=True)
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def fake_run(
    runs: Path,
    task: str,
    episodes: Sequence[Episode],
    *,
    seed: int = 1,
    method: str = "tdmpc2",
    variant: str = "default",
    state: str = "COMPLETED",
    keep: bool = True,
    saves: int = 2,
    **spec: Any,
) -> Path:
    """Write the run directory of a finished run with these episodes, in several shards."""
    run = RunSpec(method, task, seed, 1000, variant=variant, overrides=spec.pop("overrides", ()))
    directory = run.run_dir(runs)
    facts = {"method": method, "variant": variant, "task": task, "seed": seed, "budget": 1000}
    facts |= {"obs": "state", "assets": None, "protocol": {}, "overrides": dict(run.overrides)}
    facts |= {"identity": run.identity, "commit": "c0ffee", "budget_unit": "env_steps", **spec}
    directory.mkdir(parents=True)
    write_json(directory / "spec.json", facts)
    write_json(directory / "status.json", {"state": state, "env_step": 1000, "message": ""})
    row, store = get_task(task), CheckpointStore(directory, keep_replay=keep)
    replay = Replay(10_000, 1, (row.obs_dim,), row.action_dim, generator=generator())
    for number, one in enumerate(episodes, 1):
        replay.add(one)
        if number % max(len(episodes) // saves, 1) == 0 or number == len(episodes):
            store.save(number, {}, replay if keep else None)
    store.forget_history()
    return directory


def exit_code_of(body: Callable[[], None]) -> int:
    """Run a function in a forked process and return its exit status."""
    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def episodes(task: str, first: int, count: int = 4) -> list[Episode]:
    """Return episodes of 5, 6, 7 … transitions, numbered from `first`; the second terminates."""
    return [episode(task, first + i, 5 + i, terminated=i == 1) for i in range(count)]


def four_runs(runs: Path) -> Path:
    """Write run directories of two tasks with two seeds each; episodes from 10, 20, 30 and 40."""
    for i, task in enumerate(TWO):
        for seed in (1, 2):
            fake_run(runs, task, episodes(task, 20 * i + 10 * seed), seed=seed)
    return runs


def options(tmp_path: Path, **changes: Any) -> BuildOptions:
    """Return options that build a dataset from these runs."""
    values = {"tasks": ",".join(TWO), "runs": tmp_path / "runs", "out": tmp_path / "d", **changes}
    return BuildOptions(**values)
