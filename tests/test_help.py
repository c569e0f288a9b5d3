"""Every command prints `--help` and refuses unknown arguments without importing slow libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc2.__main__ import COMMANDS as SCRIPT
from tdmpc2.data.__main__ import COMMANDS as DATA_COMMANDS
from tdmpc2.runners.registry import METHODS
from tests.test_architecture import FILES, ROOT, SIMULATORS, name

SLOW = {"torch", "pandas", "matplotlib", "scipy", "sacred", "rliable", "submitit", "gymnasium"}
SLOW |= set(SIMULATORS)
SCRIPTS = [*FILES, *sorted((ROOT / "benchmarks").glob("*.py"))]
COMMANDS = [path for path in SCRIPTS if re.search(r"sys.exit\((cli\.)?command\(", path.read_text())]


def run(path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command; return its result, and the names of the packages that it has imported."""
    is_package = path.name == "__main__.py"
    command = ["-m", name(path.parent).replace("/", ".")] if is_package else [str(path)]
    line = [sys.executable, "-X", "importtime", *command, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    return done, set(re.findall(r"^import time: .*\| +(\w+)", done.stderr, re.MULTILINE))


def test_all_commands_are_found() -> None:
    found = {name(path) for path in COMMANDS}
    assert {"tdmpc2/train.py", "tdmpc2/data/__main__.py", "benchmarks/speed.py"} <= found


def test_every_command_of_the_packages_is_a_command_of_the_script() -> None:
    files = [name(path.parent if path.name == "__main__.py" else path) for path in COMMANDS]
    modules = {file.removesuffix(".py").replace("/", ".") for file in files}
    own = {module for module in modules if not module.startswith("benchmarks.")} - {"tdmpc2"}
    assert own == {command.module for command in SCRIPT.values()}


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_help_is_fast(path: Path) -> None:
    done, imported = run(path, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not re.search("MISSING|<class|object at", done.stdout)  # values shown as Python objects
    assert "tdmpc2" in imported
    assert imported & SLOW == set()


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_an_unknown_argument_is_refused_fast(path: Path) -> None:
    done, imported = run(path, "unknown=1")
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert imported & SLOW == set()


@pytest.mark.parametrize("method", METHODS)
def test_the_hyperparameters_of_a_method_are_listed_and_checked_fast(method: str) -> None:
    train = ROOT / "tdmpc2" / "train.py"
    done, imported = run(train, f"method={method}", "--help")
    assert f"Hyperparameters of {method} " in done.stdout
    assert imported & SLOW == set()
    done, imported = run(train, f"method={method}", "task=toy-pointmass", "batch_size=many")
    assert "error: batch_size=many: an integer in " in done.stderr
    assert imported & SLOW == set()


@pytest.mark.parametrize("arguments", [("--help",), ("batch_size=many",)])
def test_the_settings_of_offline_training_are_listed_and_checked_fast(
    arguments: tuple[str, ...],
) -> None:
    done, imported = run(ROOT / "tdmpc2" / "train.py", "task=mt30", "data=nowhere", *arguments)
    assert "batch_size=" in done.stdout + done.stderr
    assert imported & SLOW == set()


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_the_help_of_a_subcommand_is_fast(name: str) -> None:
    done, imported = run(ROOT / "tdmpc2" / "data" / "__main__.py", name, "--help")
    assert done.stdout.startswith(f"usage: python -m tdmpc2.data {name} ")
    assert imported & SLOW == set()
