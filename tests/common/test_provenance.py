"""Provenance of results."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from tdmpc2.common.run import provenance as module
from tdmpc2.common.run.provenance import git_commit, provenance
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.envs.adapters import ADAPTERS, recorded_distributions


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the project by a repository with one commit."""
    monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    line = ["git", "-C", str(folder), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_and_changes(checkout: Path) -> None:
    assert git_commit() == git(checkout, "rev-parse", "HEAD")
    assert provenance()["commit"] == git_commit()
    assert provenance()["dirty"] is False
    (checkout / "untracked").touch()
    assert provenance()["dirty"] is False
    (checkout / "file").write_text("2")
    assert provenance()["dirty"] is True


def test_changes_and_packages_are_kept_once(checkout: Path, tmp_path: Path) -> None:
    (checkout / "file").write_text("2")
    folder = tmp_path / "details"
    facts = provenance(details=folder)
    assert provenance(details=folder) == facts
    names = {f"{facts['diff']}.diff", f"{facts['all_packages']}.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert "-1" in (folder / f"{facts['diff']}.diff").read_text()
    packages = (folder / f"{facts['all_packages']}.txt").read_text().splitlines()
    assert f"torch=={torch.__version__.partition('+')[0]}" in {
        p.partition("+")[0] for p in packages
    }


def test_a_copy_of_the_code_remembers_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    write_json(tmp_path / "source.json", {"commit": "abc", "diff": "-1"})
    facts = provenance()
    assert (facts["commit"], facts["dirty"]) == ("abc", True)
    assert git_commit() == "abc"
    assert read_json(tmp_path / "source.json")["commit"] == "abc"


def test_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    assert provenance()["dirty"] is None


def test_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert git_commit() is None


def test_versions_of_what_decides_results() -> None:
    facts = provenance(recorded_distributions())
    assert facts["python"] == platform.python_version()
    assert facts["packages"].keys() == {"torch", "numpy", "gymnasium", *recorded_distributions()}
    assert {"mujoco", "dm_control", "mani_skill2", "sapien"} <= facts["packages"].keys()
    assert facts["packages"]["torch"] == torch.__version__
    supported = {
        name for row in ADAPTERS.values() if row.supports_python for name in row.distributions
    }
    assert all(facts["packages"][name] for name in supported)
    assert provenance(["no-such-package"])["packages"]["no-such-package"] is None
