"""Writing of mp4 videos frame by frame."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import numpy as np

from tdmpc2.common.system.atomic_files import temporary_beside
from tdmpc2.common.system.errors import UserError

FRAMES_PER_SECOND = 30
CLOSE_SECONDS = 60.0
"""Time in which ffmpeg must write the end of a file."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class VideoFile:
    """An mp4 file, as a context manager; it is created when the block ends without an error.

    Args:
        path: path of the file; its folder is created.

    Raises:
        UserError: the file cannot be written, e.g. on a full disk; an old file stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = temporary_beside(path)
        self._ffmpeg: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoFile:
        """Create the folder; nothing else is written before the first frame."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append a frame `(H, W, 3)` of type uint8.

        Raises:
            UserError: the file cannot be written.
        """
        if self._ffmpeg is None:
            self._ffmpeg = _start_ffmpeg(frame.shape[1], frame.shape[0], self._temporary)
        assert self._ffmpeg.stdin is not None
        try:
            self._ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
        except OSError:  # it has ended
            self._finish()

    def __exit__(self, kind: object, *exception: object) -> None:
        """Rename the finished file to its final path, or remove it after an error.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if kind is None and self._ffmpeg is not None:
                self._finish()
                os.replace(self._temporary, self.path)
        finally:
            if self._ffmpeg is not None:
                self._ffmpeg.kill()
                with contextlib.suppress(ValueError, OSError):  # its pipe is closed or broken
                    self._ffmpeg.communicate()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Wait for the end of ffmpeg; raise `UserError` if it failed."""
        assert self._ffmpeg is not None
        try:
            messages = self._ffmpeg.communicate(timeout=CLOSE_SECONDS)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            messages = f"ffmpeg did not end within {CLOSE_SECONDS:.0f} s"
            self._ffmpeg.kill()
            self._ffmpeg.wait()
        if self._ffmpeg.returncode:
            lines = messages.strip().splitlines() or [f"exit code {self._ffmpeg.returncode}"]
            raise UserError(
                f"{self.path}: the video cannot be written ({lines[0]}); free some space, or leave "
                "the video out, and run the same command again"
            )


def _start_ffmpeg(width: int, height: int, target: Path) -> subprocess.Popen[bytes]:
    """Start the process that encodes frames from its standard input.

    Args:
        width: width of a frame in pixels.
        height: height of a frame in pixels.
        target: the file to write.
    """
    from imageio_ffmpeg import get_ffmpeg_exe  # brings its own ffmpeg

    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command = [get_ffmpeg_exe(), "-y", "-v", "error", *source, "-r", str(FRAMES_PER_SECOND)]
    command += ["-i", "-", "-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "25"]
    # SLURM and terminals signal all processes of a run, which itself decides when to stop.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return subprocess.Popen(
            [*command, "-f", "mp4", f"file:{target}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
