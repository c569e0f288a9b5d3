"""Malformed command lines: one line, in time, and nothing is written."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdmpc2.checkpoints.__main__ import OPTIONS as CHECKPOINT_OPTIONS
from tdmpc2.common.system import cli
from tdmpc2.common.system.command import command
from tdmpc2.common.system.config_checks import Settings
from tdmpc2.completion import schema_of
from tdmpc2.data.__main__ import COMMANDS as DATA_COMMANDS
from tdmpc2.envs.assets.__main__ import FetchOptions
from tests.test_architecture import ROOT, name
from tests.test_help import COMMANDS

CPU_SECONDS = 20.0  # with the import of pandas and matplotlib
WITHOUT_OPTIONS = ("doctor.py", "completion.py")
FUZZED = [path for path in COMMANDS if path.name not in WITHOUT_OPTIONS]
# What keeps valid command lines from training, downloading or measuring.
HARMLESS = {
    "sweeps/launch.py": ["dry_run=true", "tasks=toy-pointmass"],
    "ablations/run.py": ["--no-simnorm", "--dry-run", "--tasks=toy-pointmass"],
    "analysis/fetch_published.py": ["archive=missing.zip"],
    "tdmpc2/train.py": ["task=toy-pointmass"],
    "tdmpc2/frames.py": ["tasks=toy-pointmass"],
    "tdmpc2/finetune.py": ["checkpoint=missing", "task=walker-walk"],
    "benchmarks/analysis_scale.py": ["published=."],
    "benchmarks/sweep_scale.py": ["suite=smoke"],
    "tdmpc2/data/__main__.py build": ["tasks=toy-pointmass", "out=new"],
    "tdmpc2/data/__main__.py convert": ["files=missing", "out=new"],
    "tdmpc2/data/__main__.py inspect": ["data=missing"],
    "tdmpc2/data/__main__.py verify": ["data=missing"],
    "tdmpc2/checkpoints/__main__.py inspect": ["file=missing"],
    "tdmpc2/checkpoints/__main__.py import": ["file=missing", "task=walker-walk", "out=new.pt"],
    "tdmpc2/checkpoints/__main__.py export": ["file=missing", "out=new.pt"],
    "tdmpc2/checkpoints/__main__.py evaluate": ["file=missing", "task=walker-walk"],
    "tdmpc2/checkpoints/__main__.py fetch": ["name=walker-walk"],
}
# Commands that train or measure check their arguments in a function of their own.
PARSE_ONLY = ("tdmpc2/train.py", "tdmpc2/finetune.py")
BENCHMARKS = ROOT / "benchmarks"
SUBCOMMANDS: Mapping[str, Mapping[str, type[Settings]]] = {
    "tdmpc2/checkpoints/__main__.py": CHECKPOINT_OPTIONS,
    "tdmpc2/data/__main__.py": {key: one.options for key, one in DATA_COMMANDS.items()},
    "tdmpc2/envs/assets/__main__.py": dict.fromkeys(("list", "build", "fetch ycb"), FetchOptions),
}
NASTY = [
    *("", " ", "nan", "inf", "-inf", "-1", "1e400", "1e12", "-0.0", "1e-320", "0x10", "9" * 400),
    *("none", "true", "maybe", "~nosuchuser/x", "/dev/null/x", "..", "../..", "/", "x" * 300),
    *("a\nb", "a\tb", "\x1b[31m", "é" * 90, "漢字", "🙂", "{}", "{0}", "%s", "$HOME", "*", "[1]"),
    *("=", "==", ",", ",,", ":", "+", "default,", "a=b", "--", "-", "\\", "'", '"', "1,2,x", "3,3"),
]
VALUES = st.one_of(st.sampled_from(NASTY), st.text(max_size=30), st.integers().map(str))


def parts_of(path: Path) -> tuple[ModuleType, Callable[[Sequence[str]], int]]:
    """Return the module of a command, and the function to call in place of its `main`."""
    measures = path.parent == BENCHMARKS
    module = importlib.import_module(
        path.stem if measures else name(path).removesuffix(".py").replace("/", ".")
    )
    if not measures and name(path) not in PARSE_ONLY:
        return module, module.main

    def parse(arguments: Sequence[str]) -> int:
        module.parse(arguments)
        return 0

    return module, parse


@dataclass(frozen=True)
class Fuzzed:
    """A command, or one of its subcommands."""

    path: Path
    subcommand: str = ""

    @property
    def name(self) -> str:
        return f"{name(self.path)} {self.subcommand}".rstrip()

    @property
    def harmless(self) -> list[str]:
        return HARMLESS.get(self.name, [])

    def keys(self) -> list[str]:
        """Return the options; those of the benchmarks and subcommands are those of a class."""
        if self.subcommand:
            return sorted(cli.schema_of(SUBCOMMANDS[name(self.path)][self.subcommand]))
        return sorted(schema_of(parts_of(self.path)[0], self.harmless))


COMMANDS_AND_SUBCOMMANDS = [
    Fuzzed(path, subcommand)
    for path in FUZZED
    for subcommand in SUBCOMMANDS.get(name(path), {"": Settings})
]
each_command = pytest.mark.parametrize("fuzzed", COMMANDS_AND_SUBCOMMANDS, ids=lambda one: one.name)


def outcome_of(
    path: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, float]:
    """Run a command in this process; return exit code, standard error and CPU seconds."""
    module, main = parts_of(path)
    monkeypatch.setattr(sys, "argv", [name(path), *arguments])
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(main, module.usage)
    return code, err.getvalue(), time.process_time() - started


def written(folder: Path) -> Mapping[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def fuzz(
    fuzzed: Fuzzed,
    draw: st.DrawFn,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str | None = None,
) -> None:
    """Run a command with a random command line, and check what must hold for each.

    Args:
        fuzzed: the command.
        draw: function that samples.
        folder: folder that must not change if the command line is refused.
        monkeypatch: used for `sys.argv`.
        first: option that the command line contains; None for a random one.
    """
    keys = fuzzed.keys()
    pairs = st.tuples(st.sampled_from(keys), VALUES)
    chosen = [(first, draw(VALUES))] if first else [draw(pairs)]
    chosen += draw(st.lists(pairs, max_size=2))
    form = draw(st.sampled_from(["{}={}", "--{}={}", "--{} {}", "{}={}", "{}"]))
    arguments = [part for pair in chosen for part in _written_as(form, *pair)]
    arguments += draw(st.lists(VALUES, max_size=1))
    given_keys = {re.split("[= ]", text.lstrip("-"))[0].replace("-", "_") for text in arguments}
    for text in (*fuzzed.harmless, f"runs={folder / 'runs'}"):
        key = text.lstrip("-").partition("=")[0].replace("-", "_")
        if key not in given_keys and (key != "runs" or key in keys):
            arguments.append(text)
    arguments = [*fuzzed.subcommand.split(), *arguments]
    before = written(folder)
    code, err, seconds = outcome_of(fuzzed.path, arguments, monkeypatch)
    assert seconds < CPU_SECONDS, arguments
    assert "Traceback" not in err, arguments
    assert code in (0, 1, 2, 3, 4), (arguments, err)
    if code == 2:
        assert err.count("\n") == 1, (arguments, err)
        assert err.startswith("error: "), (arguments, err)
        assert written(folder) == before, arguments


def _written_as(form: str, key: str, value: str) -> list[str]:
    return form.format(key, value).split(" ", 1) if form == "--{} {}" else [form.format(key, value)]


def _no_network(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENETUNREACH, "no network in this test")


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # as if they were started as scripts
    # Matplotlib also has a cache there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    for variable in ("TDMPC2_PUBLISHED", "MS2_ASSET_DIR"):
        monkeypatch.delenv(variable, raising=False)


def examples(number: int) -> settings:
    """Return the settings of a deterministic search of that many examples."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def search(
    number: int,
    fuzzed: Fuzzed,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str | None = None,
) -> None:
    """Try that many random command lines; the other arguments are those of `fuzz`."""

    @examples(number)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        fuzz(fuzzed, data.draw, folder, monkeypatch, first)

    check()


@each_command
def test_malformed_command_lines(
    fuzzed: Fuzzed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(25, fuzzed, tmp_path, monkeypatch)


@pytest.mark.slow
@each_command
def test_many_malformed_command_lines(
    fuzzed: Fuzzed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least 3,000 in total; each option of each command is reached."""
    keys = fuzzed.keys()
    for key in keys:
        search(
            3000 // len(COMMANDS_AND_SUBCOMMANDS) // len(keys) + 1,
            *(fuzzed, tmp_path, monkeypatch, key),
        )
