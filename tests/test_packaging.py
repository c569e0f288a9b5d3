"""The packaging: pins against ranges, declared imports, the set-up script and the make targets."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tdmpc2.envs.adapters import ADAPTERS
from tests.test_architecture import PACKAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"3.11": "py311.lock", "3.12": "py312.lock"}


def platform(system: str, machine: str, python: str) -> dict[str, str]:
    """The environment in which markers are evaluated."""
    return {
        "sys_platform": system,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "extra": "",
    }


PLATFORMS = [
    platform(*pair, python)
    for python in LOCKS
    for pair in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


def read_pins(python: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    """The lock file for a Python version on Linux x86-64, or elsewhere, as {name: version}."""
    environment = environment or platform("linux", "x86_64", python)
    lines = (ROOT / "requirements" / LOCKS[python]).read_text().splitlines()
    pins = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, extras included, but for those of optional loggers."""
    extras = PROJECT["optional-dependencies"]
    groups = [PROJECT["dependencies"], *(extras[name] for name in extras if name != "loggers")]
    return [Requirement(line) for group in groups for line in group]


@pytest.mark.parametrize("python", LOCKS)
def test_lock_holds_nothing_but_exact_public_pins(python):
    lines = (ROOT / "requirements" / LOCKS[python]).read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 50
    for line in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^#;]+)?", line), line
    assert len({line.split("==")[0] for line in pins}) == len(pins)


@pytest.mark.parametrize("python", LOCKS)
def test_lock_pins_torch_and_leaves_its_gpu_packages_to_it(python):
    pins = read_pins(python)
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("environment", PLATFORMS, ids=lambda e: "-".join(e.values()))
def test_every_range_admits_the_pin(environment):
    pins = read_pins(environment["python_version"], environment)
    applicable = [r for r in declared() if r.marker is None or r.marker.evaluate(environment)]
    assert len(applicable) > 20
    for requirement in applicable:
        pin = pins[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, f"{requirement} does not admit {pin}"


def test_python_312_is_311_without_maniskill2():
    py311, py312 = read_pins("3.11"), read_pins("3.12")
    assert {"mani-skill2", "sapien"} <= py311.keys() - py312.keys()
    assert py312.keys() <= py311.keys()
    assert {name for name in py312 if py312[name] != py311[name]} == {"numpy"}


@pytest.mark.parametrize("environment", PLATFORMS, ids=lambda e: "-".join(e.values()))
def test_maniskill2_is_pinned_where_it_has_releases(environment):
    pins = read_pins(environment["python_version"], environment)
    supported = environment == platform("linux", "x86_64", "3.11")
    assert ("mani-skill2" in pins, "sapien" in pins) == (supported, supported)
    assert {"dm-control", "metaworld", "myosuite", "torch"} <= pins.keys()


def test_python_313_is_refused_by_the_metadata():
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in ("3.10.9", "3.11.0", "3.12.9", "3.13.0") if v in supported] == [
        "3.11.0",
        "3.12.9",
    ]


def imported_modules() -> dict[str, Path]:
    """Third-party top-level modules that the project imports, each with a file that does."""
    scripts = {path.stem for path in (ROOT / "benchmarks").iterdir()}  # import each other
    own = {*PACKAGES, *scripts, "tests", "benchmarks"}
    found = {}
    for folder in (*PACKAGES, "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                found |= {name.split(".")[0]: path for name in names}
    return {m: p for m, p in found.items() if m not in own and m not in sys.stdlib_module_names}


# triton comes with the builds of PyTorch for GPUs, which pin it; mlcroissant checks the description
# of bundles where it is installed.
UNDECLARED = ("triton", "mlcroissant")


def test_every_import_is_a_declared_dependency():
    loggers = map(Requirement, PROJECT["optional-dependencies"]["loggers"])
    names = {canonicalize_name(requirement.name) for requirement in (*declared(), *loggers)}
    providers = importlib.metadata.packages_distributions()
    modules = imported_modules()
    assert "torch" in modules
    for module, path in modules.items():
        if module in ("mani_skill2", "sapien") and module not in providers:
            continue  # absent on Python 3.12
        if module in UNDECLARED:
            continue
        packages = map(canonicalize_name, providers.get(module, [module]))
        distributions = {name.removesuffix("-skinny") for name in packages}  # a part of mlflow
        assert distributions & names, f"{path.relative_to(ROOT)} imports undeclared {module}"


def test_extras_name_each_simulator_and_the_default_holds_them_all():
    extras = PROJECT["optional-dependencies"]
    commands = "".join(adapter.install for adapter in ADAPTERS.values())
    simulators = set(re.findall(r"'\.\[(\w+)\]'", commands))
    assert simulators | {"analysis", "sweeps", "docs", "loggers", "dev"} == extras.keys()
    for simulator in simulators:
        assert set(extras[simulator]) <= set(PROJECT["dependencies"])


def test_newest_changelog_entry_is_the_version():
    versions = re.findall(r"(?m)^## (\S+) - (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert versions[0][0] == PROJECT["version"]
    dates = [date for _, date in versions]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in dates)
    assert dates == sorted(dates, reverse=True)
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert all(f"name: {author['name']}" in citation for author in PROJECT["authors"])


def test_pre_commit_needs_no_network():
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", config)) == {"local"}
    assert set(re.findall(r"language: (\S+)", config)) == {"system"}


def test_every_package_is_checked_before_a_commit():
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    wanted = re.search(r"id: mypy\n.*?files: (\S+)", config, re.DOTALL)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    assert all(re.search(wanted[1], f"{package}/agent.py") for package in packages)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, so that the real environment is not touched."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("pyproject.toml", "Makefile", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, copy / name)
    return copy


@pytest.fixture
def python313(tmp_path: Path) -> Path:
    """A PATH folder with the everyday tools and a Python 3.13, but no other Python, apt or uv."""
    tools = "bash cat cut dirname env find flock grep id mkdir mv realpath rm sed sha256sum tail tr"
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in tools.split():
        (folder / tool).symlink_to(shutil.which(tool))
    shim = folder / "python3.13"
    shim.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.13\n')
    shim.chmod(0o755)
    return folder


def run(command: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with HOME in `cwd`, so that nothing of the user's own is found."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    kept["HOME"] = str(cwd)
    return subprocess.run(
        command, cwd=cwd, env=kept | env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_set_up_refuses_a_wanted_python_313(project, python313):
    done = run(["bash", "scripts/setup.sh"], project, PYTHON=str(python313 / "python3.13"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "3.13 is not supported" in done.stderr
    assert not (project / ".venv").exists()


def test_set_up_refuses_a_machine_with_python_313_only(project, python313):
    done = run(["bash", "scripts/setup.sh"], project, PATH=str(python313))
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "3.13 is not supported" in done.stderr


def test_set_up_refuses_a_python_that_does_not_run(project):
    done = run(["bash", "scripts/setup.sh"], project, PYTHON="no-such-python")
    assert done.returncode == 2
    assert done.stderr == "setup: PYTHON=no-such-python does not run\n"


def test_set_up_says_when_an_installed_torch_is_kept(project, python313):
    """An environment without its Python is made anew, and half a torch is installed again."""
    venv = project / ".venv"
    version = read_pins("3.11")["torch"]
    info = venv / f"lib/python3.11/site-packages/torch-{version}+cpu.dist-info"
    info.mkdir(parents=True)
    (info / "INSTALLER").touch()
    (info.parent / "torch").mkdir()

    def set_up() -> tuple[bool, str]:
        index = {"PATH": str(python313), "TORCH_INDEX_URL": "https://example.org/cpu"}
        done = run(["bash", "scripts/setup.sh"], project, **index)
        said = "TORCH_INDEX_URL has no effect on the torch that .venv has" in done.stdout
        return said, done.stdout.splitlines()[-1] if done.stdout else done.stderr

    said, end = set_up()
    assert "3.13 is not supported" in end
    assert not said
    (venv / "bin").mkdir(exist_ok=True)
    (venv / "bin/activate").write_text(str(venv))
    (venv / "bin/python").write_text('#!/bin/sh\n[ "$1" != -c ] || echo 3.11\n')
    (venv / "bin/python").chmod(0o755)
    said, end = set_up()
    assert "ready: " in end
    assert not said
    said, end = set_up()
    assert "up to date: " in end
    assert said
    (venv / ".setup-stamp").unlink()
    info.mkdir()
    for name in ("INSTALLER", "RECORD"):
        (info / name).touch()
    said, end = set_up()
    assert "ready: " in end
    assert said


def test_missing_system_packages_are_named_with_what_they_are_for(project, tmp_path):
    folder = tmp_path / "dpkg"
    folder.mkdir()
    query = folder / "dpkg-query"
    installed = ["git", "g++", "libgl1", "libglib2.0-0t64"]
    lines = "".join(f"{name} installed\\n" for name in installed)
    query.write_text(f"#!/bin/sh\nprintf '{lines}libegl1 config-files\\n'\n")
    query.chmod(0o755)
    script = 'venv=.venv; say() { echo "$*"; }; source scripts/system_packages.sh; '
    script += "report_missing_packages"
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = run(["bash", "-euo", "pipefail", "-c", script], project, PATH=path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"libvulkan1 +ManiSkill2's five tasks", done.stdout)
    assert re.search(r"libegl1 +pixel observations", done.stdout)
    assert done.stdout.endswith("sudo apt-get install -y libvulkan1 libegl1\n")
    assert "libglib2.0-0" not in done.stdout


def test_set_up_names_every_system_library_that_simulators_link(project):
    """OSMesa is an alternative to EGL, and libgl1 depends on libX11."""
    listed = (project / "scripts" / "system_packages.sh").read_text().split()
    packages = {package for row in ADAPTERS.values() for package in row.system_libraries.values()}
    assert {name.partition("|")[0] for name in listed} >= packages - {"libosmesa6", "libx11-6"}


def test_make_targets_run_the_two_commands(project):
    smoke = run(["make", "-n", "smoke"], project).stdout
    order = ["scripts/setup.sh", "launch.py suite=smoke seeds=2", "make_figures.py", "Figures: "]
    positions = [smoke.index(text) for text in order]
    assert positions == sorted(positions)
    test = run(["make", "-n", "test"], project).stdout
    assert test.index("scripts/setup.sh") < test.index('-m pytest -m "not slow"')


def test_bare_make_lists_the_targets(project):
    listed = run(["make"], project).stdout
    for target in ("install", "smoke", "test", "lint", "lock"):
        assert f"make {target} " in listed


def test_figures_are_ignored_but_their_sources_are_not(project):
    run(["git", "init", "-q"], project)
    folder = "paper_figures"
    paths = [f"{folder}/{name}" for name in ("a.png", "a.pdf", "a.csv", "README.md")]
    paths += [f"{folder}/{n}" for n in ("figures.toml", "paper.mplstyle", "recorded/a.csv")]
    done = run(["git", "check-ignore", *paths, "runs/x", ".venv/x", "tests/data/a.npz"], project)
    assert done.stdout.split() == [*paths[:4], "runs/x", ".venv/x"]
