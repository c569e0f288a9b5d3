"""Malformed command lines: one line, in time, and nothing is written."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdmpc2.common.system.command import command
from tdmpc2.completion import schema_of
from tests.test_architecture import name
from tests.test_help import COMMANDS

CPU_SECONDS = 20.0  # with the import of pandas and matplotlib
# Left out: benchmarks, which measure, and commands without options.
FUZZED = [
    path
    for path in COMMANDS
    if not name(path).startswith("benchmarks/") and path.name not in ("doctor.py", "completion.py")
]
# What keeps valid command lines from training, downloading or measuring.
HARMLESS = {
    "sweeps/launch.py": ["dry_run=true", "tasks=toy-pointmass"],
    "ablations/run.py": ["--no-simnorm", "--dry-run", "--tasks=toy-pointmass"],
    "analysis/fetch_published.py": ["archive=missing.zip"],
    "tdmpc2/train.py": ["task=toy-pointmass"],
    "tdmpc2/finetune.py": ["checkpoint=missing", "task=walker-walk"],
}
PARSE_ONLY = ("tdmpc2/train.py", "tdmpc2/finetune.py")
SUBCOMMANDS = {
    "tdmpc2/checkpoints/__main__.py": ("inspect", "import", "export", "evaluate"),
    "tdmpc2/data/__main__.py": ("build", "convert", "inspect", "verify"),
    "tdmpc2/envs/assets/__main__.py": ("list", "build"),
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
    module = importlib.import_module(name(path).removesuffix(".py").replace("/", "."))
    if name(path) not in PARSE_ONLY:
        return module, module.main

    def parse(arguments: Sequence[str]) -> int:
        module.parse(arguments)
        return 0

    return module, parse


def keys_of(path: Path, module: ModuleType) -> list[str]:
    """Return the options of a command; those of subcommands are taken from the help."""
    with contextlib.suppress(Exception):
        keys = sorted(schema_of(module, HARMLESS.get(name(path), [])))
        if keys:
            return keys
    return sorted(set(re.findall(r"\b([a-z_]+)=", module.usage())))


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


def fuzz(path: Path, draw: st.DrawFn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command with a random command line, and check what must hold for each."""
    module, _ = parts_of(path)
    keys = keys_of(path, module)
    chosen = draw(st.lists(st.tuples(st.sampled_from(keys), VALUES), min_size=1, max_size=3))
    form = draw(st.sampled_from(["{}={}", "--{}={}", "--{} {}", "{}={}", "{}"]))
    arguments = [part for pair in chosen for part in _written_as(form, *pair)]
    arguments += draw(st.lists(VALUES, max_size=1))
    given_keys = {re.split("[= ]", text.lstrip("-"))[0].replace("-", "_") for text in arguments}
    for text in (*HARMLESS.get(name(path), ()), f"runs={folder / 'runs'}"):
        key = text.lstrip("-").partition("=")[0].replace("-", "_")
        if key not in given_keys and (key != "runs" or key in keys):
            arguments.append(text)
    if name(path) in SUBCOMMANDS:
        arguments.insert(0, draw(st.sampled_from(SUBCOMMANDS[name(path)])))
    before = written(folder)
    code, err, seconds = outcome_of(path, arguments, monkeypatch)
    assert seconds < CPU_SECONDS, arguments
    assert "Traceback" not in err, arguments
    assert code in (0, 1, 2, 3, 4), (arguments, err)
    if code == 2:
        assert err.count("\n") == 1, (arguments, err)
        assert err.startswith("error: "), (arguments, err)
        assert written(folder) == before, arguments


def _written_as(form: str, key: str, value: str) -> list[str]:
    return form.format(key, value).split(" ", 1) if form == "--{} {}" else [form.format(key, value)]


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Matplotlib also has a cache there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
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


@pytest.mark.parametrize("path", FUZZED, ids=name)
def test_malformed_command_lines(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @examples(25)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        fuzz(path, data.draw, tmp_path, monkeypatch)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("path", FUZZED, ids=name)
def test_many_malformed_command_lines(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @examples(3000 // len(FUZZED) + 1)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        fuzz(path, data.draw, tmp_path, monkeypatch)

    check()
