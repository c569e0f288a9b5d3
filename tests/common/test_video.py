"""Videos are written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tdmpc2.common.run.video import VideoFile

COLORS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


def frame(color: tuple[int, int, int]) -> np.ndarray:
    """Return a frame of one color."""
    return np.full((32, 48, 3), color, dtype=np.uint8)


def test_frames_come_back(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "100.mp4"
    with VideoFile(path) as video:
        for color in COLORS:
            video.add(frame(color))
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path]
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["size"] == (48, 32)
    means = [np.frombuffer(data, np.uint8).reshape(-1, 3).mean(axis=0) for data in reader]
    np.testing.assert_allclose(means, COLORS, atol=12)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def film_and_fail() -> None:
        with VideoFile(tmp_path / "100.mp4") as video:
            video.add(frame(COLORS[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_video_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "100.mp4"
    path.write_bytes(b"old")
    with VideoFile(path) as video:
        video.add(frame(COLORS[0]))
        assert path.read_bytes() == b"old"
    assert path.read_bytes()[4:8] == b"ftyp"
