"""Paths that options name, alone or in lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc2.common.system import paths
from tdmpc2.common.system.cli import parse_value
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import listed_paths, named_folders


def test_a_list_and_a_single_path_with_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert listed_paths("a,b", "files") == [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "a,b").write_text("")
    assert listed_paths("a,b", "files") == [tmp_path / "a,b"]
    with pytest.raises(UserError, match=r"files=.*a,b does not exist"):
        named_folders("a,b", "files")
    assert listed_paths("", "files") == []


def test_a_current_folder_that_no_longer_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    monkeypatch.setattr(paths, "is_checkout", lambda: False)
    assert paths.user_path(str(tmp_path), "runs") == tmp_path
    for use in (
        lambda: paths.user_path("a", "runs"),
        lambda: parse_value("runs", "a", Path),
        paths.project_root,
    ):
        with pytest.raises(UserError, match="the current folder no longer exists"):
            use()


def test_a_list_may_be_longer_than_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"chunk_{i}.pt" for i in range(1000)]
    assert listed_paths(",".join(names), "files") == [tmp_path / name for name in names]


def test_another_python_finds_the_packages_of_a_wheel_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "is_checkout", lambda: False)
    folder = paths.importable()
    assert folder.is_relative_to(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(paths.PACKAGES)
    assert (folder / "tdmpc2").resolve() == paths.packages_root() / "tdmpc2"
    assert paths.importable() == folder
