"""The folder for compiled code: only this user's, and on a file system that may run it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tdmpc2.common.system.paths import code_folder


def test_the_first_folder_is_taken_and_created_for_this_user_only(tmp_path: Path) -> None:
    first = tmp_path / "deep" / "first"
    assert code_folder(first, tmp_path / "second") == first
    assert first.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("fault", ["others may write", "a link", "a file", "another user's"])
def test_a_folder_that_others_could_fill_is_not_taken(fault: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    if fault == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        first.symlink_to(tmp_path / "elsewhere")
    elif fault == "a file":
        first.touch()
    else:
        first.mkdir()
        first.chmod(0o777 if fault == "others may write" else 0o755)
    if fault == "another user's":
        if os.getuid():
            pytest.skip("only root can give a folder away")
        os.chown(first, 1, 1)
    assert code_folder(first, second) == second
    assert code_folder(first) == first  # the errors of its use say why it is unsuitable


def test_a_disk_that_runs_no_programs_is_not_taken(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can mount a disk")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", first], check=True)
    try:
        first.chmod(0o700)
        assert code_folder(first, second) == second
    finally:
        subprocess.run(["umount", first], check=True)
