"""Atomic file writes: the old or the new file is complete."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from pathlib import Path
from typing import IO

import pytest

from tdmpc2.common.system.atomic_files import (
    PROBE_BYTES,
    cannot_write,
    full_disk,
    lacks_space,
    put_in_place,
    read_json,
    remove_leftovers,
    sha256_of,
    write_atomic,
    write_json,
)
from tdmpc2.common.system.errors import UserError


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"name": "ü", "list": [1, 2.5, None, True], "path": Path("/a")}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {**value, "path": "/a"}
    assert (tmp_path / "x.json").read_bytes().endswith(b"\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_two_writers_with_one_process_id_do_not_meet(tmp_path: Path) -> None:
    """As in two containers, which write one file of a shared disk at the same moment."""
    path = tmp_path / "x.json"

    def slowly(file: IO[bytes]) -> None:
        file.write(b"{")
        write_json(path, "other")
        file.write(b"}")

    write_atomic(path, slowly)
    assert path.read_bytes() == b"{}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["missing.json", "file/missing.json"])
def test_no_json_is_none(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_json(tmp_path / path) is None


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_damaged_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json: damaged \("):
        read_json(tmp_path / "x.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file: IO[bytes]) -> None:
        file.write(b"new")
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomic(path, lambda file: file.write(b"old"))

    def write(file: IO[bytes]) -> None:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomic(path, write)
    assert path.read_bytes() == b"new"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", "kept.tmp", ".kept", "kept.json", ".b.tmp/state.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, tmp_path / "no such folder")
    assert {path.name for path in tmp_path.iterdir()} == {"kept.tmp", ".kept", "kept.json"}


def test_the_first_folder_to_be_finished_stays(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with put_in_place(target, "") as slow:
        (slow / "mark").write_text("slow")
        with put_in_place(target, "") as fast:
            (fast / "mark").write_text("fast")
    assert (target / "mark").read_text() == "fast"
    assert os.listdir(tmp_path) == ["set"]


def test_checksum(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def chained(hidden: OSError) -> RuntimeError:
    """Return an error that was raised while another was handled, as `torch.save` does."""
    try:
        try:
            raise hidden
        except OSError:
            raise RuntimeError("unexpected pos")  # noqa: B904  (the case under test)
    except RuntimeError as error:
        return error


def test_a_full_disk_is_recognised_behind_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert full_disk(full) is full
    assert full_disk(chained(full)) is full
    assert full_disk(OSError(errno.EDQUOT, "Quota")) is not None
    assert full_disk(OSError(errno.EFBIG, "File too large")) is not None
    other = OSError(errno.EIO, "Input/output error")
    assert full_disk(other) is None
    assert full_disk(chained(other)) is None
    assert full_disk(None) is None


def test_errors_that_name_each_other_as_cause_and_context_have_an_end() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__context__, second.__cause__ = second, first
    assert full_disk(first) is None


def test_a_full_disk_is_found_by_writing(tmp_path: Path) -> None:
    assert not lacks_space(tmp_path)
    assert not lacks_space(tmp_path / "missing")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PROBE_BYTES // 2, limit[1]))
    try:
        assert lacks_space(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "cannot write to out=x: No space left on device (x/a.csv); free some"),
        (errno.EROFS, "cannot write to out=x: Read-only file system (x/a.csv); name another"),
    ],
)
def test_output_that_cannot_be_written_is_one_line_with_advice(number: int, expected: str) -> None:
    error = OSError(number, os.strerror(number), "x/a.csv")
    assert cannot_write("to out=x", error).startswith(expected)
