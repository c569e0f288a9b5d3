"""The episode replay buffer, compared with a plain list of episodes."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, Episode, Transition
from tdmpc2.common.system.errors import UserError

LENGTH = 3


def make_replay(capacity: int = 60, length: int = LENGTH, **kwargs: Any) -> Replay:
    """Return a replay buffer with 2-dimensional observations and 1-dimensional actions."""
    generator = torch.Generator().manual_seed(0)
    return Replay(capacity, length, (2,), 1, generator=generator, **kwargs)


def episode(number: int, length: int, *, terminated: bool = False, task: int = 0) -> Episode:
    """Return an episode whose entries identify their origin: (number, time)."""
    time = np.arange(length + 1, dtype=np.float32)
    return Episode(
        obs=np.stack([np.full(length + 1, number, np.float32), time], axis=1),
        action=(100 * number + time[:-1, None]).astype(np.float32),
        reward=-(100 * number + time[:-1]).astype(np.float32),
        terminated=terminated,
        task=task,
    )


def starts(batch: Batch) -> list[tuple[int, int]]:
    """Return (episode, time) of the start of each sub-trajectory."""
    return [(int(number), int(time)) for number, time in batch.obs[0].tolist()]


def assert_unbroken(batch: Batch) -> None:
    """Check that every sub-trajectory lies in one episode and has its actions and rewards."""
    number, start = batch.obs[0, :, 0], batch.obs[0, :, 1]
    for t in range(len(batch.obs)):
        assert torch.equal(batch.obs[t, :, 0], number)
        assert torch.equal(batch.obs[t, :, 1], start + t)
    for t in range(len(batch.action)):
        assert torch.equal(batch.action[t, :, 0], 100 * number + start + t)
        assert torch.equal(batch.reward[t], -(100 * number + start + t))


def all_starts(lengths: dict[int, int], length: int = LENGTH) -> set[tuple[int, int]]:
    """Return all valid starts of sub-trajectories, by episode number."""
    return {(n, t) for n, total in lengths.items() for t in range(total - length + 1)}


# --- what is stored ------------------------------------------------------------------


def test_one_episode() -> None:
    replay = make_replay()
    replay.add(episode(1, 5, terminated=True))
    assert (replay.num_episodes, replay.num_transitions, replay.num_starts) == (1, 5, 3)
    batch = replay.sample(64, LENGTH)
    assert batch.obs.shape == (4, 64, 2)
    assert batch.action.shape == (3, 64, 1)
    assert batch.reward.shape == batch.terminated.shape == (3, 64)
    assert batch.task is None
    assert batch.weight is None
    assert_unbroken(batch)
    assert set(starts(batch)) == {(1, 0), (1, 1), (1, 2)}
    # Only the last transition ends the episode, and only the last start reaches it.
    last = batch.obs[0, :, 1] == 2
    assert torch.equal(batch.terminated[2], last.float())
    assert not batch.terminated[:2].any()


def test_a_ring_of_unequal_episodes() -> None:
    """After each of many additions the newest episodes that fit are stored and sampled."""
    rng = np.random.default_rng(0)
    replay, held = make_replay(), deque()
    for number in range(60):
        length = int(rng.integers(1, 25))
        replay.add(episode(number, length, terminated=bool(number % 2)))
        held.append((number, length))
        while sum(total + 1 for _, total in held) > 60:
            held.popleft()
        assert replay.num_episodes == len(held)
        assert replay.num_transitions == sum(total for _, total in held)
        expected = all_starts(dict(held))
        assert replay.num_starts == len(expected)
        if not expected:
            continue
        batch = replay.sample(600, LENGTH)
        assert_unbroken(batch)
        assert set(starts(batch)) == expected
        ends = {n: total for n, total in held if n % 2}
        for b, (n, t) in enumerate(starts(batch)):
            terminated = [float(t + k + 1 == ends.get(n)) for k in range(LENGTH)]
            assert batch.terminated[:, b].tolist() == terminated


def test_short_episodes_are_kept_but_never_sampled() -> None:
    replay = make_replay()
    replay.add(episode(1, 2))
    assert (replay.num_episodes, replay.num_starts) == (1, 0)
    with pytest.raises(ValueError, match="no episode of 3"):
        replay.sample(4, LENGTH)
    with pytest.raises(UserError, match=r"use a smaller horizon .*, or let episodes last longer"):
        replay.sample(4, LENGTH)
    replay.add(episode(2, 3))
    assert set(starts(replay.sample(50, LENGTH))) == {(2, 0)}


def test_an_episode_may_fill_the_buffer_but_not_more() -> None:
    replay = make_replay(capacity=10)
    replay.add(episode(1, 4))
    replay.add(episode(2, 9))
    assert replay.num_episodes == 1
    assert set(starts(replay.sample(200, LENGTH))) == all_starts({2: 9})
    with pytest.raises(ValueError, match="11 rows does not fit 10"):
        replay.add(episode(3, 10))
    assert set(starts(replay.sample(200, LENGTH))) == all_starts({2: 9})


def test_only_its_own_length_is_sampled() -> None:
    replay = make_replay()
    replay.add(episode(1, 9))
    with pytest.raises(UserError, match=r"length 4, but this buffer samples 3, .*replay_length$"):
        replay.sample(4, 4)


def test_tasks_come_with_the_rows() -> None:
    replay = make_replay(num_tasks=3)
    for number in range(3):
        replay.add(episode(number, 6, task=2 - number))
    batch = replay.sample(100, LENGTH)
    assert batch.task.tolist() == [2 - number for number, _ in starts(batch)]


def test_pixels_stay_bytes() -> None:
    generator = torch.Generator().manual_seed(0)
    replay = Replay(20, 2, (3, 4, 4), 1, generator=generator, obs_dtype=torch.uint8)
    images = np.random.default_rng(0).integers(256, size=(6, 3, 4, 4), dtype=np.uint8)
    replay.add(Episode(images, np.zeros((5, 1), np.float32), np.zeros(5, np.float32)))
    batch = replay.sample(8, 2)
    assert batch.obs.dtype == torch.uint8
    for b, row in enumerate(batch.start.tolist()):
        np.testing.assert_array_equal(batch.obs[:, b].numpy(), images[row : row + 3])


def test_uniform_over_starts() -> None:
    """Pearson's statistic over all starts of unequal episodes, after the ring has wrapped."""
    replay = make_replay()
    lengths = {0: 30, 1: 20, 2: 4, 3: 17, 4: 3, 5: 12}
    for number, length in lengths.items():
        replay.add(episode(number, length))
    held = {n: lengths[n] for n in (2, 3, 4, 5)}
    expected_starts = all_starts(held)
    drawn = starts(replay.sample(20_000, LENGTH))
    expected = len(drawn) / len(expected_starts)
    counts = {start: 0 for start in expected_starts}
    for start in drawn:
        counts[start] += 1
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(counts) - 1
    assert len(counts) == 2 + 15 + 1 + 10
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


# --- saving --------------------------------------------------------------------------


def same_batches(one: Replay, other: Replay) -> bool:
    """Return whether the next ten samples are equal in every field."""
    for _ in range(10):
        pairs = zip(one.sample(16, LENGTH), other.sample(16, LENGTH), strict=True)
        if not all(a is b is None or torch.equal(a, b) for a, b in pairs):
            return False
    return True


@pytest.mark.parametrize("priorities", [None, (0.6, 0.4)])
@pytest.mark.parametrize("num_episodes", [1, 3, 12])
def test_a_restored_buffer_continues_alike(
    num_episodes: int, priorities: tuple[float, float] | None
) -> None:
    """The restored buffer has the same rows and samples, also after further episodes."""
    replay = make_replay(priorities=priorities)
    lengths = [13, 4, 22, 2, 9, 17, 5, 11, 3, 20, 8, 6]
    for number in range(num_episodes):
        replay.add(episode(number, lengths[number], terminated=number % 3 == 0))
        batch = replay.sample(8, LENGTH)
        if priorities:
            replay.update_priorities(batch.start, 5 * torch.rand(8))
    restored = make_replay(priorities=priorities)
    restored.load_state_dict(replay.state_dict(), replay.episodes(0))
    if priorities:
        restored_tree = restored.state_dict()["priorities"]
        assert torch.equal(restored_tree, replay.state_dict()["priorities"])
    assert same_batches(replay, restored)
    for number in range(num_episodes, num_episodes + 8):
        for each in (replay, restored):
            each.add(episode(number, 7 + number % 5))
        assert same_batches(replay, restored)
        assert replay.num_starts == restored.num_starts
        newest = restored.episodes(number)
        assert [each.obs[0, 0] for each in newest] == [number]


def test_episodes_come_back_as_they_went_in() -> None:
    replay = make_replay()
    added = [episode(n, 10 + n, terminated=n == 4, task=n) for n in range(6)]
    for each in added:
        replay.add(each)
    held = replay.num_episodes
    assert held == 4  # 13 + 14 + 15 + 16 rows of 60
    for first in range(8):
        expected = added[max(first, 6 - held) :]
        read = replay.episodes(first)
        assert len(read) == len(expected)
        for ours, theirs in zip(read, expected, strict=True):
            np.testing.assert_array_equal(ours.obs, theirs.obs)
            np.testing.assert_array_equal(ours.action, theirs.action)
            np.testing.assert_array_equal(ours.reward, theirs.reward)
            assert (ours.terminated, ours.task) == (theirs.terminated, theirs.task)


def test_restoring_checks_what_it_is_given() -> None:
    replay = make_replay()
    for number in range(3):
        replay.add(episode(number, 8))
    state = replay.state_dict()
    with pytest.raises(ValueError, match="the state has 3 episodes, 2 were given"):
        make_replay().load_state_dict(state, replay.episodes(1))
    with pytest.raises(ValueError, match="empty"):
        replay.load_state_dict(state, replay.episodes(0))


# --- prioritized sampling ------------------------------------------------------------


def test_prioritised_sampling_and_weights() -> None:
    """Frequencies p_i^α / Σ p^α, weights (N·P)^−β / max, both from the definitions."""
    replay = make_replay(priorities=(0.6, 0.4))
    replay.add(episode(0, 7))
    replay.add(episode(1, 6))
    errors = torch.tensor([0.1, 2.0, 0.5, 1.0, 8.0, 0.0, 3.0, 1.0, 0.2])
    rows = torch.tensor([0, 1, 2, 3, 4, 8, 9, 10, 11])
    replay.update_priorities(rows, errors)
    raw = [(e + 1e-6) ** 0.6 for e in errors.tolist()]
    share = dict(zip(rows.tolist(), (p / sum(raw) for p in raw), strict=True))
    num = 40_000
    batch = replay.sample(num, LENGTH)
    assert_unbroken(batch)
    index = batch.start.tolist()
    for row, p in share.items():
        tolerance = 5 * (p * (1 - p) / num) ** 0.5
        assert abs(index.count(row) / num - p) <= tolerance
    drawn = set(index)
    greatest = max((9 * share[row]) ** -0.4 for row in drawn)
    for row, weight in zip(index[:200], batch.weight[:200].tolist(), strict=True):
        assert weight == pytest.approx((9 * share[row]) ** -0.4 / greatest, rel=1e-5)
    assert batch.weight.max() == 1.0
    assert batch.weight.dtype == torch.float32


def priorities_of(replay: Replay) -> dict[int, float]:
    """Return the rows with a priority above zero."""
    leaves = replay.state_dict()["priorities"]
    return {row: leaves[row].item() for row in leaves.nonzero().flatten().tolist()}


def test_new_episodes_get_the_largest_priority_there_is() -> None:
    replay = make_replay(priorities=(1.0, 0.4))
    replay.add(episode(0, 4))
    assert priorities_of(replay) == {0: 1.0, 1: 1.0}
    replay.update_priorities(torch.tensor([0, 1]), torch.tensor([6.0, 0.5]))
    replay.add(episode(1, 3))
    expected = {0: 6.0, 1: 0.5, 5: 6.0}
    assert priorities_of(replay) == pytest.approx(expected, rel=1e-5)
    replay.update_priorities(torch.tensor([0, 5]), torch.tensor([0.1, 0.2]))
    replay.add(episode(2, 3))
    assert priorities_of(replay)[9] == pytest.approx(0.5, rel=1e-5)


def test_evicted_episodes_lose_their_priority() -> None:
    """All samples lie in stored episodes, also when the ring wraps around."""
    replay = make_replay(capacity=30, priorities=(0.6, 0.4))
    generator = torch.Generator().manual_seed(1)
    lengths = [8, 3, 14, 2, 9, 6, 11, 5, 20, 4, 7]
    for number, length in enumerate(lengths):
        replay.add(episode(number, length))
        for _ in range(5):
            batch = replay.sample(32, LENGTH)
            assert_unbroken(batch)
            replay.update_priorities(batch.start, 5 * torch.rand(32, generator=generator))
        oldest = number + 1 - replay.num_episodes
        assert min(n for n, _ in starts(batch)) >= oldest
        assert len(priorities_of(replay)) == replay.num_starts


def test_batches_move_as_a_whole() -> None:
    batch = Batch(*(torch.ones(2, 3) for _ in range(4)), weight=torch.ones(3))
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert [x is None for x in moved] == [x is None for x in batch]
    assert all(x.device.type == "meta" for x in moved if x is not None)


# --- row by row ------------------------------------------------------------------------


def grow(replay: Replay, episode: Episode) -> None:
    """Append an episode transition by transition, with the result of `add`."""
    for t in range(len(episode)):
        row = (episode.obs[t], episode.action[t], float(episode.reward[t]), episode.obs[t + 1])
        replay.append(Transition(*row, episode.terminated and t == len(episode) - 1))
    replay.finish()


@pytest.mark.parametrize("priorities", [None, (0.6, 0.4)])
@pytest.mark.parametrize("length", [1, 3])
def test_growing_episodes_are_the_same_as_whole_ones(length: int, priorities: Any) -> None:
    rng = np.random.default_rng(0)
    whole, grown = (make_replay(length=length, priorities=priorities) for _ in range(2))
    for number in range(30):
        one = episode(number, int(rng.integers(1, 20)), terminated=number % 3 == 0)
        whole.add(one)
        grow(grown, one)
        if whole.num_starts:
            a, b = whole.sample(16, length), grown.sample(16, length)
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)
        state, other = whole.state_dict(), grown.state_dict()
        assert state.keys() == other.keys()
        assert state["first_row"] == other["first_row"]
        assert whole.num_transitions == grown.num_transitions


def test_a_growing_episode_is_sampled_from_at_once() -> None:
    replay = make_replay()
    one = episode(1, 5)
    for t in range(4):
        row = (one.obs[t], one.action[t], float(one.reward[t]), one.obs[t + 1])
        replay.append(Transition(*row, False))
        assert replay.num_starts == max(t + 1 - LENGTH + 1, 0)
        assert replay.num_transitions == t + 1
    assert (replay.num_episodes, replay.num_added) == (0, 0)
    batch = replay.sample(32, LENGTH)
    assert_unbroken(batch)
    assert set(starts(batch)) == {(1, 0), (1, 1)}


def test_a_growing_episode_drops_the_oldest_and_must_fit() -> None:
    replay = make_replay(12)
    replay.add(episode(1, 7))
    grow(replay, episode(2, 6))
    assert [len(e) for e in replay.episodes(0)] == [6]
    with pytest.raises(ValueError, match="does not fit 12 rows"):
        grow(replay, episode(3, 12))
    with pytest.raises(ValueError, match="one environment"):
        replay.append(Transition(np.zeros(2), np.zeros(1), 0.0, np.zeros(2), False), 1)
    with pytest.raises(ValueError, match="no unfinished episode"):
        make_replay().finish()


def test_drawn_places_are_gathered_as_one_sample() -> None:
    one, other = make_replay(capacity=20), make_replay(capacity=20)
    for number in range(5):  # the ring of rows begins anew
        for replay in (one, other):
            replay.add(episode(number, 5))
    for _ in range(3):
        sampled, gathered = one.sample(8, LENGTH), other.gather(other.draw(8))
        assert starts(sampled) == starts(gathered)
        assert_unbroken(gathered)
    with pytest.raises(ValueError, match="no episode"):
        make_replay().draw(1)
    prioritized = make_replay(priorities=(0.6, 0.4))
    prioritized.add(episode(0, 5))
    with pytest.raises(ValueError, match="by priority"):
        prioritized.draw(1)
