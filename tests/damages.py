"""Ways to damage a JSON file of a run or a sweep."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

CONTENTS = {
    "empty": b"",
    "half": b'{"seed": 1, "sta',
    "zeros": b"\0" * 64,
    "binary": b"\xff\xfe\x00\x01",
    "null": b"null",
    "list": b"[]",
    "numbers": b"[1, 2]",
    "text": b'"text"',
    "number": b"3",
    "object": b"{}",
    "nested": b"[" * 100_000,
    "wrong types": json.dumps(
        {key: [1] for key in ("seed", "state", "torch", "commit", "format", "shards", "runs")}
    ).encode(),
}
DAMAGES = (*CONTENTS, "folder", "link loop", "pipe", "socket")


def damage(path: Path, how: str) -> None:
    """Replace a file by something else.

    Args:
        path: the file.
        how: one of `DAMAGES`.
    """
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link loop":
        path.symlink_to(path)
    elif how == "pipe":  # nothing ever writes to it
        os.mkfifo(path)
    elif how == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.write_bytes(CONTENTS[how])
