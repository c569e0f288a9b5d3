"""Videos are written completely or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tdmpc2.common.run.video import VideoFile
from tdmpc2.common.system.errors import UserError

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


def test_a_full_disk_keeps_the_old_video_and_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "100.mp4"
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small file system")
    rng = np.random.default_rng(0)

    def film(number: int) -> None:
        with VideoFile(path) as video:
            for _ in range(number):
                video.add(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))

    try:
        path.parent.mkdir()
        path.write_bytes(b"old")
        for number in (50, 400):  # noticed at the end, or when a frame is added
            with pytest.raises(UserError, match="No space left on device") as raised:
                film(number)
            assert str(raised.value).startswith(f"{path}: the video cannot be written (")
            assert path.read_bytes() == b"old"
            assert list(path.parent.iterdir()) == [path]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_signals_to_a_whole_run_do_not_end_a_video(tmp_path: Path) -> None:
    path = tmp_path / "100.mp4"
    with VideoFile(path) as video:
        video.add(frame(COLORS[0]))
        assert video._ffmpeg is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(video._ffmpeg.pid, number)
        for color in COLORS:
            video.add(frame(color))
    assert path.read_bytes()[4:8] == b"ftyp"
