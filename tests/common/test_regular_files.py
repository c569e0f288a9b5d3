"""Files that are not files, and files that are too large, are named before they are read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from tdmpc2.common.system.regular_files import LARGEST_RECORD, regular


def test_files_and_links_to_files_pass(tmp_path: Path) -> None:
    path, link = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("1")
    link.symlink_to(path)
    assert regular(path) is path
    assert regular(link) is link


def test_what_does_not_exist_is_left_to_the_reader(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "a" / "b", loop):
        assert regular(path) == path


def test_what_has_no_end_is_refused(tmp_path: Path) -> None:
    pipe, socket, link = (tmp_path / name for name in ("pipe", "socket", "link"))
    os.mkfifo(pipe)
    os.mknod(socket, stat.S_IFSOCK | 0o600)
    link.symlink_to("/dev/zero")
    for path, what in ((pipe, "a named pipe"), (socket, "a socket"), (link, "a device")):
        with pytest.raises(OSError, match=f"{what}, not a file") as raised:
            regular(path)
        assert raised.value.filename == str(path)


def test_a_record_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.touch()
    os.truncate(path, LARGEST_RECORD)  # a file with holes, which needs no space
    assert regular(path) == path
    os.truncate(path, LARGEST_RECORD + 1)
    with pytest.raises(OSError, match=re.escape("1,073,741,825 bytes, but at most")):
        regular(path)
    assert regular(path, None) == path
