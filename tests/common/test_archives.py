"""Extraction of archives: hostile and damaged ones are refused in one line."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from analysis import fetch_published
from tdmpc2.common.system.archives import MOST_GROWTH, check_members, unpack
from tdmpc2.common.system.errors import UserError, one_line


def make_zip(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refusal(path: Path, to: Path) -> str:
    to.mkdir()
    with pytest.raises(UserError) as raised:
        unpack(path, "top", to)
    message = str(raised.value)
    assert message == one_line(message)
    assert str(path) in message
    return message


def test_one_folder_is_extracted(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("top/a/b.txt", b"text"), ("other/c.txt", b"no")])
    unpack(path, "top", tmp_path / "out")
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")] == [
        "a/b.txt"
    ]


@pytest.mark.parametrize("lost", [1, 30])
def test_an_archive_that_has_lost_bytes_is_damaged(lost: int, tmp_path: Path) -> None:
    """Its offsets lead to places before its beginning."""
    path = make_zip(tmp_path / "a.zip", [("top/a.txt", b"text")])
    content = path.read_bytes()
    path.write_bytes(content[:4] + content[4 + lost :])
    assert "damaged archive (" in refusal(path, tmp_path / "out")
    with pytest.raises(UserError, match="damaged archive"):
        check_members(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("top/zeros", bytes(50_000_000))])
    assert MOST_GROWTH * path.stat().st_size < 50_000_000
    assert "would become 0.1 GB" in refusal(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [("top/a", "top/a/b"), ("top/a/b", "top/a"), ("top/" + "x" * 300,), ("top/a", "top/a")],
    ids=["file, then folder", "folder, then file", "long name", "twice"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_cannot_be_written(names: tuple[str, ...], tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [(name, b"text") for name in names])
    assert "cannot be unpacked" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "top/../../x", "/x", "top\\x"])
def test_members_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("top/a", b""), (name, b"")])
    assert "would write outside its folder" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 10, 60, -1])
def test_a_truncated_archive(keep: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("top/a", bytes(range(256)) * 8)])
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged archive" in refusal(path, tmp_path / "out")


def test_a_refused_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("top/a", b"text")])
    with pytest.raises(UserError, match="contains no folder"):
        fetch_published.main([f"archive={path}", f"out={tmp_path / 'new' / 'deep' / 'out'}"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_curves_are_not_taken_for_granted(kind: str, tmp_path: Path) -> None:
    """An existing target without curves is not reported as done."""
    out = tmp_path / "out"
    if kind == "file":
        out.touch()
    else:
        out.mkdir()
        (out / "notes.txt").touch()
    with pytest.raises(UserError, match="exists, but contains no curves"):
        fetch_published.main([f"out={out}"])
