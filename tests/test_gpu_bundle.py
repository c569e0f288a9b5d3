"""The offline bundle: arguments, packages, trimming and startup."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.envs.tasks import TASKS
from tests.test_packaging import PROJECT, ROOT, read_pins

SCRIPT = ROOT / "scripts" / "gpu_bundle.sh"
# Environment in which requirement markers are evaluated.
TARGET = {"python_version": "3.12", "python_full_version": "3.12.1", "extra": ""}
ON_312 = sys.version_info[:2] == (3, 12)

# Prints observations and rewards of the given tasks, for fixed actions and across a reset.
_PLAY = """
import sys
import numpy as np
from tdmpc2.envs.factory import make_env
played = {}
for task in sys.argv[3:]:
    env = make_env(task, seed=1)
    actions = np.random.default_rng(2).uniform(-1, 1, (10, *env.action_space.shape))
    rows = []
    for seed in (1, 2):
        rows.append(np.append(env.reset(seed=seed)[0], 0.0))
        rows += [np.append(*env.step(action)[:2]) for action in actions]
    env.close()
    played[task] = np.array(rows)
import dm_control, metaworld, myosuite
assert all(m.__file__.startswith(sys.argv[2]) for m in (dm_control, metaworld, myosuite))
np.savez(sys.argv[1], **played)
"""


def bash(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with HOME in `cwd`, so that the user's own files are not found."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=kept | {"HOME": str(cwd)} | env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def array(name: str) -> list[str]:
    """Return an array variable of the script."""
    done = bash(f'source {SCRIPT}; printf "%s\\n" "${{{name}[@]}}"', ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def trim(packages: Path) -> None:
    """Apply the script's `trim` to a folder of unpacked packages."""
    done = bash(f"source {SCRIPT}; trim {packages}", ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--fast",
            "unknown option '--fast': the only argument is the folder to write",
        ),
        ("one two", "unexpected argument 'two': the only argument is the folder to write"),
        (".", f"{ROOT} exists: remove it, or name another folder"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    done = bash(f"bash {SCRIPT} {arguments}", ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"gpu_bundle: {message}\n"


def test_a_python_without_pip_is_one_line(checkout):
    done = bash("bash scripts/gpu_bundle.sh", checkout, PYTHON="no-such-python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gpu_bundle: no-such-python has no pip: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / "bundle").exists()


def test_a_folder_without_git_is_one_line(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = bash(
        "bash scripts/gpu_bundle.sh", tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent)
    )
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"gpu_bundle: {tmp_path} is not a git checkout: the bundle is made from a commit\n"
    assert done.stderr == expected


def test_help_names_the_argument(tmp_path):
    done = bash(f"bash {SCRIPT} --help", tmp_path)
    assert done.returncode == 0
    assert "usage: bash scripts/gpu_bundle.sh [FOLDER]" in done.stdout


def test_every_bundled_package_has_its_pin():
    names, pins = array("bundled"), read_pins("3.12")
    assert names == sorted(set(names))
    done = bash(f"source {SCRIPT}; pins", ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}=={pins[name]}" for name in names]


def test_a_package_without_a_pin_is_one_line(tmp_path):
    done = bash(f"cd {ROOT}; source {SCRIPT}; bundled=(no-such-package); pins", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "gpu_bundle: no pin of no-such-package in requirements/py312.lock: run make lock\n"
    )


def test_every_dependency_is_bundled_provided_or_omitted():
    bundled, provided, omitted = array("bundled"), array("provided"), array("omitted")
    known = {*bundled, *provided, *omitted}
    assert len(known) == len(bundled) + len(provided) + len(omitted)
    wanted = {"tdmpc2-repro": PROJECT["dependencies"]}
    wanted |= {name: importlib.metadata.requires(name) or [] for name in bundled}
    for package, lines in wanted.items():
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate(TARGET):
                name = canonicalize_name(requirement.name)
                assert name in known, f"{package} needs {name}"
    needed = {
        canonicalize_name(Requirement(line).name) for lines in wanted.values() for line in lines
    }
    assert {*bundled, *omitted} - needed <= {"submitit"}, "not needed by anything"


def test_meshes_and_textures_stay_if_a_model_names_them(tmp_path):
    assets = tmp_path / "metaworld" / "assets"
    scene = assets / "scene"
    scene.mkdir(parents=True)
    (scene / "scene.xml").write_text(
        '<texture fileright="../wood.png"/><mesh file="../arm.stl"/><mesh file="hand.msh"/>'
    )
    for name in ("wood.png", "arm.stl", "old.png", "old.stl", "notes.txt"):
        (assets / name).touch()
    for name in ("hand.msh", "unused.msh"):
        (scene / name).touch()
    agents = tmp_path / "myosuite" / "agents"
    agents.mkdir(parents=True)
    trim(tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"scene.xml", "wood.png", "arm.stl", "hand.msh", "notes.txt"}
    assert not agents.exists()


@pytest.mark.slow
def test_all_tasks_are_the_same_on_trimmed_packages(tmp_path):
    installed = Path(sysconfig.get_path("platlib"))
    trimmed = tmp_path / "site"

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copyfile(source, target)

    for package in ("dm_control", "metaworld", "mujoco", "myosuite", "OpenGL"):
        shutil.copytree(installed / package, trimmed / package, copy_function=link)
    trim(trimmed)
    tasks = [name for name, task in TASKS.items() if task.domain not in ("toy", "maniskill2")]
    assert len(tasks) == 99
    played = []
    for packages in (installed, trimmed):
        out = tmp_path / f"{packages.name}.npz"
        command = [sys.executable, "-c", _PLAY, str(out), str(packages), *tasks]
        path = os.pathsep.join([str(packages), str(ROOT)])
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
        played.append(np.load(out))
    for task in tasks:
        np.testing.assert_array_equal(*(each[task] for each in played), err_msg=task)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Make a bundle of one package and a project that prints its arguments."""
    folder = tmp_path / "a bundle"
    shutil.copytree(ROOT / "scripts" / "gpu_bundle", folder)
    benchmarks = folder / "project" / "benchmarks"
    benchmarks.mkdir(parents=True)
    (benchmarks / "gpu_acceptance.py").write_text(
        "import os, sys, bundled\nprint(sys.argv[1:], bundled.__file__, os.environ['MPLCONFIGDIR'])"
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "bundled.py").touch()
    with tarfile.open(folder / "site.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "site", "site")
    (folder / "provided.txt").write_text("torch\nno-such-package\n")
    return folder


@pytest.mark.skipif(ON_312, reason="shows the message for another Python")
def test_another_python_is_refused_in_one_line(bundle, tmp_path):
    done = bash(f"bash '{bundle}/run.sh'", tmp_path, PYTHON=sys.executable)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"bundle: {sys.executable} is Python {version}: set PYTHON to a Python 3.12\n"
    )
    assert not (bundle / "site").exists()


@pytest.mark.skipif(not ON_312, reason="the packages of a bundle are for Python 3.12")
def test_arguments_reach_the_command_and_packages_are_unpacked_once(bundle, tmp_path):
    for _ in range(2):
        done = bash(f"bash '{bundle}/run.sh' small=true 'a b'", tmp_path, PYTHON=sys.executable)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            f"['small=true', 'a b'] {bundle}/site/bundled.py {bundle}/cache/matplotlib\n"
        )
        assert done.stderr == "bundle: warning: not installed here: no-such-package\n"
    assert {path.name for path in bundle.glob(".site*")} == set()


@pytest.mark.parametrize("name", ["gpu_bundle.sh", "gpu_bundle/env.sh", "gpu_bundle/run.sh"])
def test_the_scripts_parse(name):
    assert bash(f"bash -n {ROOT}/scripts/{name}", ROOT).returncode == 0


def fake_wheel(folder: Path, pin: str) -> None:
    """Write a wheel with one empty package."""
    name, version = pin.split("==")
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}/__init__.py", "")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a git checkout of the files that the script reads, and a wheel for every pin."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, copy / name)
    (tmp_path / "wheels").mkdir()
    for name in array("bundled"):
        fake_wheel(tmp_path / "wheels", f"{name}=={read_pins('3.12')[name]}")
    commit = "git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm first"
    assert bash(commit, copy).returncode == 0
    return copy


def test_a_bundle_holds_the_commit_and_every_package(checkout, tmp_path):
    make = f"bash {checkout}/scripts/gpu_bundle.sh new/bundle"
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{tmp_path}/wheels", "PYTHON": sys.executable}
    (checkout / "uncommitted.txt").touch()
    done = bash(make, tmp_path, **pip)
    assert done.returncode == 0, done.stderr
    assert "gpu_bundle: uncommitted changes are not included\n" in done.stdout
    assert done.stdout.endswith("\nbash bundle/run.sh\n")
    made = tmp_path / "new" / "bundle"
    assert f"gpu_bundle: {made}: 0 MiB, commit " in done.stdout
    commit = bash("git rev-parse HEAD", checkout).stdout.strip()
    assert read_json(made / "project" / "source.json") == {"commit": commit, "diff": ""}
    assert (made / "project" / "scripts" / "gpu_bundle.sh").is_file()
    assert not (made / "project" / "uncommitted.txt").exists()
    with tarfile.open(made / "site.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    packages = {distribution.metadata["Name"]: distribution.version for distribution in found}
    pins = read_pins("3.12")
    expected = {name: pins[name] for name in array("bundled")}
    assert packages == expected | {PROJECT["name"]: PROJECT["version"]}
    again = bash(make, tmp_path, **pip)
    assert again.stderr == f"gpu_bundle: {made} exists: remove it, or name another folder\n"


def test_without_the_packages_the_reason_is_shown_and_nothing_is_left(checkout, tmp_path):
    pip = {"PIP_NO_INDEX": "1", "PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    done = bash("bash scripts/gpu_bundle.sh", checkout, **pip)
    assert done.returncode == 2
    assert "ERROR: No matching distribution found for attrs" in done.stderr
    last = "gpu_bundle: pip could not download the packages: check the network and pip's settings\n"
    assert done.stderr.endswith(last)
    assert not (checkout / "bundle").exists()
    assert not list(tmp_path.glob("tmp.*"))
