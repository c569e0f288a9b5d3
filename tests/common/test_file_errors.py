"""Errors of disks and file servers: one line, and nothing counts as damaged."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tdmpc2.common.run.run_files import CsvRecord
from tdmpc2.common.system.atomic_files import read_json, sha256_of, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import (
    UnreadableError,
    cause_of,
    disk_error,
    is_unknown,
    unreadable,
)
from tests import disk_errors

ADVICE = "check the disk or the file server, and run the same command again"


def test_a_file_that_cannot_be_read_may_be_intact(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with disk_errors.unreadable(path):
        with pytest.raises(UnreadableError) as caught:
            read_json(path)
        assert str(caught.value) == f"{path}: cannot be read (Input/output error); {ADVICE}"
        with pytest.raises(OSError, match="Input/output error") as read:
            sha256_of(path)
        assert read.value.filename == str(path)  # reads alone name no file
    assert read_json(path) == {"a": 1}


def test_records_name_their_file(tmp_path: Path) -> None:
    record = CsvRecord(tmp_path / "eval.csv")
    record.append({"env_step": 0})
    mark = record.mark()
    with disk_errors.unreadable(record.path):
        for read in (record.mark, lambda: record.cut_back(mark)):
            with pytest.raises(OSError, match="Input/output error") as caught:
                read()
            assert caught.value.filename == str(record.path)
    record.cut_back(mark)
    assert record.path.read_text() == "env_step\n0\n"


@pytest.mark.parametrize(
    ("number", "unknown", "advice"),
    [
        (errno.EIO, True, f"; {ADVICE}"),
        (errno.ESTALE, True, f"; {ADVICE}"),
        (errno.EMFILE, True, "; raise the limit of open files (`ulimit -n`), and run the same "),
        (errno.EACCES, True, ""),
        (errno.EISDIR, False, ""),
        (errno.ELOOP, False, ""),
    ],
)
def test_the_advice_fits_the_error(number: int, unknown: bool, advice: str) -> None:
    error = OSError(number, "why")
    assert is_unknown(error) == unknown
    told = unreadable(Path("/x"), error)
    assert isinstance(told, UnreadableError) == unknown
    assert isinstance(told, UserError)
    assert str(told).startswith(f"/x: cannot be read (why){advice}")


def test_the_cause_of_an_error_is_found() -> None:
    """`torch.save` raises a `RuntimeError` of its own."""
    error = RuntimeError("unexpected pos")
    error.__context__ = OSError(errno.EIO, "Input/output error")
    assert disk_error(error) is error.__context__
    assert disk_error(ValueError()) is None
    assert cause_of(error, (errno.ENOSPC,)) is None
    assert cause_of(None, (errno.EIO,)) is None
