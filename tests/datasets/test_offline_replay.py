"""Samples from a dataset against the episodes that it contains."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc2.common.replay.types import Batch, Episode
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.tasks import get_task
from tests.datasets.helpers import FOUR, episode, four_tasks, generator, make_dataset, same

LENGTH = 3


def make_replay(dataset: Dataset, tasks: tuple[str, ...] = FOUR, seed: int = 0) -> OfflineReplay:
    return OfflineReplay(dataset, tasks, LENGTH, 30, 8, generator=generator(seed))


def assert_from(batch: Batch, tasks: tuple[str, ...], episodes: dict[str, list[Episode]]) -> None:
    """Check that each sub-trajectory equals a section of the episode that its numbers identify."""
    assert batch.task is not None
    for b, task in enumerate(batch.task.tolist()):
        name = tasks[task]
        o, a = get_task(name).obs_dim, get_task(name).action_dim
        number, start = int(batch.obs[0, b, 0]), int(batch.obs[0, b, 1])
        source = next(e for e in episodes[name] if e.obs[0, 0] == number)
        steps = slice(start, start + LENGTH)
        np.testing.assert_array_equal(
            batch.obs[:, b, :o].numpy(), source.obs[start : start + LENGTH + 1]
        )
        np.testing.assert_array_equal(batch.action[:, b, :a].numpy(), source.action[steps])
        np.testing.assert_array_equal(batch.reward[:, b].numpy(), source.reward[steps])
        assert not batch.obs[:, b, o:].any()
        assert not batch.action[:, b, a:].any()
        ends = source.terminated and start + LENGTH == len(source)
        assert batch.terminated[:, b].tolist() == [0.0] * (LENGTH - 1) + [float(ends)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shard_bytes", [10**6, 600])
def test_rows_are_those_that_were_put_in(dtype: str, shard_bytes: int, tmp_path: Path) -> None:
    """With one shard per task, and with shards of one or two episodes; exact in float16."""
    dataset, episodes = four_tasks(tmp_path / "d", dtype=dtype, shard_bytes=shard_bytes)
    assert (len(dataset.all_shards) > 4) == (shard_bytes == 600)
    one = make_replay(dataset)
    lengths = [len(e) for task in FOUR for e in episodes[task]]
    assert one.num_episodes == len(lengths)
    assert one.num_transitions == sum(lengths)
    assert one.num_starts == sum(max(length - LENGTH + 1, 0) for length in lengths)
    batch = one.sample(400)
    assert batch.obs.shape == (LENGTH + 1, 400, 30)
    assert batch.action.shape == (LENGTH, 400, 8)
    assert batch.reward.shape == batch.terminated.shape == (LENGTH, 400)
    assert {x.dtype for x in batch[:4]} == {torch.float32}
    assert batch.task.dtype == torch.long
    assert all(x.is_contiguous() for x in batch if x is not None)
    assert_from(batch, FOUR, episodes)
    assert batch.terminated.any()


def test_uniform_over_starts(tmp_path: Path) -> None:
    """Pearson's statistic over all starts of all tasks and shards."""
    dataset, episodes = four_tasks(tmp_path / "d", shard_bytes=600)
    one = make_replay(dataset)
    drawn: Counter[tuple[int, int, int]] = Counter()
    for _ in range(20):
        batch = one.sample(1000)
        triples = zip(batch.task, batch.obs[0, :, 0], batch.obs[0, :, 1], strict=True)
        drawn.update((int(t), int(n), int(s)) for t, n, s in triples)
    expected = {
        (i, int(e.obs[0, 0]), t)
        for i, task in enumerate(FOUR)
        for e in episodes[task]
        for t in range(len(e) - LENGTH + 1)
    }
    assert set(drawn) == expected
    mean = drawn.total() / len(expected)
    statistic = sum((count - mean) ** 2 / mean for count in drawn.values())
    freedom = len(expected) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_start_counts_the_rows_of_all_shards(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d", shard_bytes=600)
    batch = make_replay(dataset).sample(200)
    obs = [shard.rows()[:, :2] for shard in dataset.all_shards]
    every = np.concatenate(obs)
    np.testing.assert_array_equal(every[batch.start.numpy()], batch.obs[0, :, :2].numpy())


def test_some_tasks_in_another_order(tmp_path: Path) -> None:
    dataset, episodes = four_tasks(tmp_path / "d")
    chosen = (FOUR[3], FOUR[0])
    one = make_replay(dataset, chosen)
    assert one.num_transitions == sum(len(e) for task in chosen for e in episodes[task])
    batch = one.sample(300)
    assert set(batch.task.tolist()) == {0, 1}
    assert_from(batch, chosen, episodes)


def test_no_more_dims_than_the_tasks_have(tmp_path: Path) -> None:
    dataset, episodes = four_tasks(tmp_path / "d")
    batch = OfflineReplay(dataset, FOUR, LENGTH, 24, 6, generator=generator()).sample(100)
    assert (batch.obs.shape[2], batch.action.shape[2]) == (24, 6)
    assert_from(batch, FOUR, episodes)
    for dims in ((23, 6), (24, 5)):
        with pytest.raises(ValueError, match="obs_dim 24 and action_dim 6 exceed"):
            OfflineReplay(dataset, FOUR, LENGTH, *dims, generator=generator())


def test_sampling_goes_on_bit_for_bit(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    one, other = make_replay(dataset), make_replay(Dataset.open(tmp_path / "d"), seed=7)
    one.sample(10)
    other.load_state_dict(one.state_dict())
    assert all(same(one.sample(16), other.sample(16)) for _ in range(5))


def test_sampling_goes_on_only_with_the_same_data(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    state = make_replay(dataset).state_dict()
    with pytest.raises(UserError, match="not the dataset or the tasks"):
        make_replay(dataset, FOUR[::-1]).load_state_dict(state)
    other = make_dataset(tmp_path / "e", {task: [episode(task, 1, 9)] for task in FOUR})
    with pytest.raises(UserError, match=dataset.checksum[:12]):
        make_replay(other).load_state_dict(state)


@pytest.mark.parametrize("cuts", [(0, 5, 16), (0, 16), (0, 1, 2, 15, 16)])
def test_shares_make_up_the_whole_batch(cuts: tuple[int, ...], tmp_path: Path) -> None:
    """Processes that sample the same indices and gather their shares make up one batch."""
    dataset, _ = four_tasks(tmp_path / "d", shard_bytes=600)
    whole = make_replay(dataset)
    shares = [(make_replay(dataset), slice(a, b)) for a, b in pairwise(cuts)]
    for _ in range(3):
        batch = whole.sample(16)
        parts = [one.sample(16, part=part) for one, part in shares]
        for name in ("obs", "action", "reward", "terminated"):
            joined = torch.cat([getattr(part, name) for part in parts], dim=1)
            assert torch.equal(joined, getattr(batch, name))
        assert torch.equal(torch.cat([part.task for part in parts]), batch.task)


def test_an_empty_share(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    assert make_replay(dataset).sample(4, part=slice(0, 0)).obs.shape == (LENGTH + 1, 0, 30)


def test_only_its_own_length_is_sampled(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    one = make_replay(dataset)
    assert same(make_replay(dataset).sample(4), one.sample(4, LENGTH))
    with pytest.raises(ValueError, match="length=4: this replay buffer samples 3 transitions"):
        one.sample(4, 4)


def test_what_cannot_be_sampled(tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    with pytest.raises(UserError, match=r"has no task 'cheeta-run' \(did you mean 'cheetah-run'"):
        make_replay(dataset, ("cheeta-run",))
    with pytest.raises(UserError, match="no episode of cheetah-run has 7 or more transitions"):
        OfflineReplay(dataset, FOUR[:2], 7, 24, 6, generator=generator())
    with pytest.raises(ValueError, match="different tasks"):
        make_replay(dataset, (FOUR[0], FOUR[0]))


def test_nothing_of_the_rows_is_held(tmp_path: Path) -> None:
    """Its memory grows with the number of episodes, not of rows."""
    few = make_dataset(tmp_path / "few", {FOUR[0]: [episode(FOUR[0], 1, 10)]})
    many = make_dataset(tmp_path / "many", {FOUR[0]: [episode(FOUR[0], 1, 120)]})

    def held(one: OfflineReplay) -> int:
        assert all(isinstance(source.rows.base, np.memmap) for source in one._sources)
        return sum(x.nbytes for x in vars(one).values() if isinstance(x, np.ndarray))

    assert held(make_replay(few, FOUR[:1])) == held(make_replay(many, FOUR[:1]))
