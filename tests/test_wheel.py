"""The built wheel: its files, and its commands in a folder without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tdmpc2.__main__ import COMMANDS
from tdmpc2.common.system.paths import PACKAGES
from tests.test_architecture import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that git knows."""
    work = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *PACKAGES, "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for file in [*listed.stdout.splitlines(), "README.md", "LICENSE"]:
        target = work / "source" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / file).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(work)]
    pip = [sys.executable, "-m", "pip", "wheel", *options, str(work / "source")]
    subprocess.run(pip, check=True, capture_output=True)
    return next(work.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """A folder with the unpacked wheel."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command `tdmpc2` of the wheel in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    code = "import sys; from tdmpc2.__main__ import run; sys.argv[0] = 'tdmpc2'; sys.exit(run())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_file_of_the_packages_is_in_the_wheel(site: Path) -> None:
    """Sources of kernels, styles and pages are files beside the modules."""
    source = site.parent / "source"
    files = {
        path.relative_to(source) for package in PACKAGES for path in (source / package).rglob("*")
    }
    missing = [str(file) for file in files if not (site / file).exists()]
    assert missing == []


def test_the_script_is_declared(site: Path) -> None:
    (declared,) = site.glob("*.dist-info/entry_points.txt")
    assert "tdmpc2 = tdmpc2.__main__:run" in declared.read_text()


def test_an_untouched_folder_gets_a_run(site: Path, tmp_path: Path) -> None:
    """The run and its records are in the current folder; nothing of the checkout is used."""
    done = run(
        *(site, tmp_path, "train", "task=toy-pointmass", "env_steps=200", "model_size=smoke"),
        *("compile=false", "seed_decisions=60", "pretrain_updates=1", "eval_every=200"),
        *("batch_size=8", "num_samples=32", "num_elites=4"),
    )
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("runs/*/*/*/*/eval.csv")
    assert len(record.read_text().splitlines()) == 3


def test_the_doctor_runs(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "doctor")
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert str(ROOT) not in done.stdout.replace(sys.prefix, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []
