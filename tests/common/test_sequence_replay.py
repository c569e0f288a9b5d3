"""The sequence replay buffer, compared with a plain list of all rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tdmpc2.common.replay.sequence_replay import SequenceReplay
from tdmpc2.common.replay.types import Episode, Transition
from tdmpc2.common.system.errors import UserError

LENGTH = 4


def make_replay(capacity: int = 80, places: int = 2) -> SequenceReplay:
    generator = torch.Generator().manual_seed(0)
    return SequenceReplay(capacity, LENGTH, (2,), 1, num_places=places, generator=generator)


class Life:
    """All rows of one environment: observations (number, time) with the preceding action."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, float, float, float]] = []

    def play(
        self, replay: SequenceReplay, place: int, number: int, length: int, *, end: bool
    ) -> None:
        """Return an episode; rows here are (number, time, action, reward, first, terminated)."""
        self.rows.append((number, 0, 0, 0, 1, 0))
        for t in range(length):
            action, reward = np.float32([100 * number + t]), float(-t - 1)
            terminated = end and t == length - 1
            obs, after = np.float32([number, t]), np.float32([number, t + 1])
            replay.append(Transition(obs, action, reward, after, terminated), place)
            self.rows.append((number, t + 1, float(action[0]), reward, 0, float(terminated)))
        replay.finish(place)


def drawn(replay: SequenceReplay, num: int = 600) -> list[tuple[tuple[float, ...], ...]]:
    """Convert sequences to tuples of rows."""
    batch = replay.sample(num, LENGTH)
    columns = [batch.obs, batch.action, *(x[..., None] for x in batch[2:])]
    joint = torch.cat(columns, dim=-1)
    return [tuple(tuple(row) for row in joint[:, i].tolist()) for i in range(num)]


def expected(lives: list[Life], held: list[int]) -> set[tuple[tuple[float, ...], ...]]:
    """Return all sequences of the newest rows per environment, with `first` set in row 0."""
    found = set()
    for life, num in zip(lives, held, strict=True):
        rows = life.rows[len(life.rows) - num :]
        for i in range(num - LENGTH + 1):
            first, *others = rows[i : i + LENGTH]
            found.add(((*first[:4], 1, first[5]), *others))
    return found


def test_sequences_cross_the_ends_of_episodes_and_never_environments() -> None:
    replay, lives = make_replay(), [Life(), Life()]
    for number, (length, end) in enumerate([(5, True), (3, False), (6, False), (2, True)]):
        lives[number % 2].play(replay, number % 2, number, length, end=end)
    assert (replay.num_episodes, replay.num_added) == (4, 4)
    assert set(drawn(replay)) == expected(lives, [13, 7])
    assert replay.num_starts == 10 + 4


def test_unfinished_episodes_are_sampled_from() -> None:
    replay = make_replay()
    for t in range(3):
        replay.append(Transition(np.zeros(2), np.zeros(1), 0.0, np.ones(2), False), 1)
        if t < 2:
            with pytest.raises(ValueError, match="no environment has 4"):
                replay.sample(1, LENGTH)
    assert replay.num_starts == 1
    assert replay.sample(2, LENGTH).first.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_the_oldest_episodes_make_room_whole() -> None:
    replay, lives, rng = make_replay(), [Life(), Life()], np.random.default_rng(0)
    lengths = []
    for number in range(40):
        lengths.append(int(rng.integers(1, 12)))
        lives[number % 2].play(replay, number % 2, number, lengths[-1], end=bool(number % 3))
    held = [0, 0]
    for number in range(40 - replay.num_episodes, 40):
        held[number % 2] += lengths[number] + 1
    assert max(held) <= 40
    assert min(held) > 20
    assert set(drawn(replay, 3000)) == expected(lives, held)


def test_draws_are_uniform() -> None:
    replay, lives = make_replay(), [Life(), Life()]
    lives[0].play(replay, 0, 0, 9, end=False)
    lives[1].play(replay, 1, 1, 5, end=False)
    sequences = drawn(replay, 10_000)
    counts = [sequences.count(s) for s in expected(lives, [10, 6])]
    assert len(counts) == 10
    assert min(counts) > 880
    assert max(counts) < 1120


def test_a_restored_buffer_gives_the_same_sequences() -> None:
    replay, life = make_replay(), Life()
    for number in range(17):
        life.play(replay, number % 2, number, 3 + number % 5, end=number == 9)
    drawn(replay)
    state = replay.state_dict()
    episodes = replay.episodes(0)
    assert len(episodes) == replay.num_episodes < 17
    assert len(replay.episodes(15)) == 2
    assert replay.episodes(9)[0].terminated
    other = make_replay()
    other.load_state_dict(state, episodes)
    for more in (replay, other):
        life.play(more, 1, 17, 6, end=False)
    assert drawn(other) == drawn(replay)
    assert other.num_added == replay.num_added == 18
    with pytest.raises(ValueError, match="only an empty buffer"):
        other.load_state_dict(state, episodes)
    with pytest.raises(ValueError, match="were given"):
        make_replay().load_state_dict(state, episodes[1:])


def test_environments_finish_in_turn() -> None:
    replay = make_replay()
    row = Transition(np.zeros(2), np.zeros(1), 0.0, np.ones(2), False)
    replay.append(row, 1)
    with pytest.raises(ValueError, match="environment 1 has no episode to finish now"):
        replay.finish(1)
    with pytest.raises(ValueError, match="environment 0 has no episode to finish now"):
        replay.finish(0)
    replay.append(row, 0)
    replay.finish(0)
    replay.finish(1)
    assert replay.num_added == 2


def test_what_does_not_fit() -> None:
    with pytest.raises(
        ValueError, match="3 rows per environment are too few for sequences of 4 rows"
    ):
        make_replay(7)
    replay = make_replay(8)
    with pytest.raises(ValueError, match="an episode does not fit 4 rows"):
        replay.add(Episode(np.zeros((6, 2)), np.zeros((5, 1)), np.zeros(5)))
    with pytest.raises(UserError, match=r"length 3, but this buffer samples 4, .*replay_length$"):
        replay.sample(1, 3)


def test_batches_move_as_a_whole() -> None:
    replay = make_replay(places=1)
    Life().play(replay, 0, 0, 9, end=False)
    batch = replay.sample(2, LENGTH)
    assert batch.to(torch.device("cpu")) is batch
    assert {x.device.type for x in batch.to(torch.device("meta"))} == {"meta"}
