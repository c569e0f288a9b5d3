"""A replay buffer that stores each frame once, compared with one that stores whole stacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Episode

SHAPE = (2, 3, 3)  # of one frame


def stacked(frames: np.ndarray, k: int) -> np.ndarray:
    """Return observations `(T + 1, k·c, H, W)` of an environment: the first frame is repeated."""
    padded = np.concatenate([frames[:1]] * (k - 1) + [frames])
    return np.concatenate([padded[i : i + len(frames)] for i in range(k)], axis=1)


def episodes(lengths: tuple[int, ...]) -> list[np.ndarray]:
    """Return distinct random frames `(T + 1, c, H, W)` for each episode."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n + 1, *SHAPE), dtype=np.uint8) for n in lengths]


def episode(obs: np.ndarray) -> Episode:
    """Return an episode with these observations."""
    num = len(obs) - 1
    return Episode(obs, np.zeros((num, 1), np.float32), np.arange(num, dtype=np.float32))


def memory(k: int, length: int, *, frame_stack: bool, capacity: int = 40, **kwargs) -> Replay:
    """Return a replay buffer that stacks frames itself, or one that stores stacks."""
    shape = (k * SHAPE[0], *SHAPE[1:])
    return Replay(
        capacity,
        length,
        shape,
        1,
        generator=torch.Generator().manual_seed(0),
        obs_dtype=torch.uint8,
        frame_stack=k if frame_stack else 1,
        **kwargs,
    )


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("priorities", [None, (0.6, 0.4)])
def test_batches_are_those_of_whole_stacks(k: int, length: int, priorities) -> None:
    """Also when the ring wraps around: 61 rows added to 40, all sub-trajectories sampled."""
    frugal, naive = (
        memory(k, length, frame_stack=flag, priorities=priorities) for flag in (True, False)
    )
    for frames in episodes((7, 4, 12, 5, 9, 4, 7, 5)):
        for replay in (frugal, naive):
            replay.add(episode(stacked(frames, k)))
    assert frugal.num_added > frugal.num_episodes  # the oldest were overwritten
    seen = set()
    for _ in range(30):
        batch, expected = (replay.sample(32, length) for replay in (frugal, naive))
        assert batch.obs.dtype == torch.uint8
        assert batch.obs.shape == (length + 1, 32, k * SHAPE[0], *SHAPE[1:])
        assert torch.equal(batch.obs, expected.obs)
        assert torch.equal(batch.reward, expected.reward)
        assert batch.start is not None
        seen |= set(batch.start.tolist())
    assert len(seen) == frugal.num_starts


def test_a_frame_is_kept_once() -> None:
    replay = memory(3, 1, frame_stack=True)
    assert replay.obs.shape == (40, *SHAPE)
    assert memory(3, 1, frame_stack=False).obs.shape == (40, 3 * SHAPE[0], *SHAPE[1:])


def test_saved_episodes_hold_frames_once_and_restore_the_same_buffer() -> None:
    replay, other = memory(3, 2, frame_stack=True), memory(3, 2, frame_stack=True)
    for frames in episodes((7, 4, 12, 5, 9, 4, 7)):
        replay.add(episode(stacked(frames, 3)))
    saved = replay.episodes(0)
    assert all(one.obs.shape == (len(one) + 1, *SHAPE) for one in saved)
    other.load_state_dict(replay.state_dict(), saved)
    for _ in range(5):
        assert torch.equal(replay.sample(16, 2).obs, other.sample(16, 2).obs)


def test_channels_must_be_whole_frames() -> None:
    with pytest.raises(ValueError, match="4 channels are not 3 equal frames"):
        Replay(9, 1, (4, 3, 3), 1, generator=torch.Generator(), frame_stack=3)
