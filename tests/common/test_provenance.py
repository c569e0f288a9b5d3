"""Provenance of results."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from tdmpc2.common.run import source_version as module
from tdmpc2.common.run.provenance import provenance
from tdmpc2.common.run.source_version import SourceVersion, git_commit
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.envs.adapters import ADAPTERS, recorded_distributions


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the project by a repository with one commit."""
    monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    home = tmp_path / ".home"  # hidden from git by its own ignore file
    home.mkdir()
    (home / ".gitignore").write_text("*")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    line = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=True)
    return done.stdout.strip()


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
    assert git_commit() is None
    assert provenance()["dirty"] is None


def test_an_installed_package_has_no_commit_of_the_folder_that_it_is_used_in(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository in the current folder is the user's, and so is a file `source.json`."""
    monkeypatch.setattr(module, "is_checkout", lambda: False)
    write_json(checkout / "source.json", {"of": "something else"})
    assert git_commit() is None
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)


def test_without_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert git_commit() is None
    assert provenance(details=checkout / "details")["commit"] is None
    assert "the version of the code is unknown (git cannot be started" in capsys.readouterr().err


# --- recorded patches ------------------------------------------------------------------


def change(checkout: Path) -> None:
    """Change files in ways that are hard on a patch: bytes, no final newline, names, new files."""
    git(checkout, "mv", "file", "a name with blanks é")
    (checkout / "a name with blanks é").write_bytes(b"2\xff\r\n  \n\n")
    package = checkout / "package"
    package.mkdir()
    (package / "known.py").write_text("a = 1\n" * 30)
    (package / "data.bin").write_bytes(bytes(range(256)))
    git(checkout, "add", "--force", "package")
    git(checkout, "commit", "-q", "-m", "second")
    (package / "known.py").write_text("a = 1\n" * 29 + "b = 'é'")
    (package / "data.bin").write_bytes(bytes(reversed(range(256))))
    (package / "new.py").write_text("c = 3\n\n")
    (package / "empty.py").touch()
    (checkout / "root.py").write_text("d = 4")


CONFIGURATIONS = {
    "none": "",
    "hostile": """
[color]
    ui = always
[core]
    excludesFile = ~/excluded
    pager = false
[diff]
    external = /bin/false
    noprefix = true
    mnemonicPrefix = true
    context = 0
    interHunkContext = 9
    relative = true
    renames = copies
    orderFile = /dev/null
    ignoreSubmodules = all
    wsErrorHighlight = all
    colorMoved = zebra
    wordRegex = .
[diff "text"]
    textconv = /bin/false
    binary = false
[status]
    showUntrackedFiles = no
""",
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_recorded_patch_restores_the_code(configuration: str, checkout: Path) -> None:
    (checkout / ".home" / ".gitconfig").write_text(CONFIGURATIONS[configuration])
    (checkout / ".home" / "excluded").write_text("*.py\n")
    (checkout / ".gitattributes").write_text("*.py diff=text\n")
    git(checkout, "add", ".gitattributes")
    change(checkout)
    details = checkout / ".home" / "details"
    facts = provenance(details=details)
    names = ["a name with blanks é", *(f"package/{n}" for n in ("known.py", "data.bin"))]
    names += ["package/new.py", "package/empty.py", "root.py"]
    content = {name: (checkout / name).read_bytes() for name in names}
    clone = checkout / ".home" / "clone"
    git(checkout, "clone", "-q", ".", str(clone))
    git(clone, "checkout", "-q", facts["commit"])
    git(clone, "apply", str(details / f"{facts['diff']}.diff"))
    assert {name: (clone / name).read_bytes() for name in names} == content


def test_new_code_counts_as_a_change(checkout: Path) -> None:
    (checkout / "new.py").touch()
    assert provenance()["dirty"] is True
    (checkout / ".gitignore").write_text("new.py")
    git(checkout, "add", ".gitignore")
    git(checkout, "commit", "-q", "-m", "second")
    assert provenance()["dirty"] is False


def test_another_repository_around_the_code_is_not_its_version(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = checkout / "copy"
    inner.mkdir()
    monkeypatch.setattr(module, "project_root", lambda: inner)
    assert git_commit() is None
    assert "only a part of" in (SourceVersion.here().unknown or "")


def test_variables_of_git_do_not_change_the_version(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, other = git_commit(), tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "another")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert git_commit() == commit
    assert provenance()["dirty"] is False


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_checkout_of_another_user_has_a_version(checkout: Path) -> None:
    commit = git_commit()
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "status")
    assert git_commit() == commit
    assert provenance()["dirty"] is False


def test_versions_of_what_decides_results() -> None:
    facts = provenance(recorded_distributions())
    assert facts["python"] == platform.python_version()
    assert facts["packages"].keys() == {"torch", "numpy", "gymnasium", *recorded_distributions()}
    assert {"mujoco", "dm_control", "mani_skill2", "sapien"} <= facts["packages"].keys()
    assert facts["packages"]["torch"] == torch.__version__
    supported = {
        name for row in ADAPTERS.values() if not row.unsupported() for name in row.distributions
    }
    assert all(facts["packages"][name] for name in supported)
    assert provenance(["no-such-package"])["packages"]["no-such-package"] is None
