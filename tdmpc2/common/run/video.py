"""Writing of mp4 videos frame by frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

FRAMES_PER_SECOND = 30


class VideoFile:
    """An mp4 file, as a context manager; it is created when the block ends without an error.

    Args:
        path: path of the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: Any = None

    def __enter__(self) -> VideoFile:
        """Create the folder; nothing else is written before the first frame."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append a frame `(H, W, 3)` of type uint8."""
        if self._writer is None:
            from imageio_ffmpeg import write_frames  # brings its own ffmpeg

            height, width, _ = frame.shape
            self._writer = write_frames(
                str(self._temporary),
                (width, height),
                fps=FRAMES_PER_SECOND,
                macro_block_size=None,
                output_params=["-f", "mp4"],
                ffmpeg_log_level="error",
            )
            self._writer.send(None)
        self._writer.send(np.ascontiguousarray(frame))

    def __exit__(self, kind: object, *exception: object) -> None:
        """Rename the finished file to its final path, or remove it after an error."""
        if self._writer is not None:
            self._writer.close()
        if kind is None and self._temporary.exists():
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)
