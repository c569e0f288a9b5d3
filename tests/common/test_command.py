"""The frame of every command: one line for every error, whatever the surroundings."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.system import cli
from tdmpc2.common.system import command as module
from tdmpc2.common.system.command import command
from tdmpc2.common.system.errors import StoppedError, UserError, one_line
from tdmpc2.common.system.memory_errors import out_of_memory
from tdmpc2.common.system.paths import cache_dir, user_path
from tdmpc2.common.system.user_code import load_object
from tdmpc2.envs.assets.folders import asset_dir
from tests.analysis.run_files import write_run
from tests.runs import arguments

ROOT = Path(__file__).parents[2]
NO_HOME = """
import os, pwd, runpy, sys
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def outcome(
    main: Callable[[Sequence[str]], int], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    return command(main, lambda: "usage")


def raising(error: BaseException) -> Callable[[Sequence[str]], int]:
    def main(arguments: Sequence[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("seed=-1: bad"), 2, "error: seed=-1: bad\n"),
        (UserError("task=a\nb\x1b[31m\udcff"), 2, "error: task=a\\nb\\x1b[31m\\udcff\n"),
        (
            PermissionError(13, "Permission denied", "/x/y"),
            2,
            "error: /x/y: Permission denied; make it usable, or name another path\n",
        ),
        (OSError(36, "File name too long", "/x"), 2, "error: /x: File name too long; make"),
        (OSError(28, "No space left on device"), 2, "error: no space left"),
        (OSError(5, "Input/output error", "/x"), 2, "error: /x: Input/output error; check the "),
        (KeyboardInterrupt(), 130, ""),
        (StoppedError("stopped at env step 5"), 130, "stopped at env step 5; run the same command"),
    ],
)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(raising(error), monkeypatch) == code
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == (1 if message else 0)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ESTALE, "check the disk or the file server"), (errno.EMFILE, "raise the limit")],
)
def test_an_error_of_the_file_system_is_no_fault_of_the_program(
    number: int,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors of reads name no file."""
    ours: dict[str, Any] = {"__name__": "sweeps.launch", "error": OSError(number, "why")}
    exec("def main(arguments): raise error", ours)
    assert outcome(ours["main"], monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: why; saved files are intact: {advice}")
    assert told.count("\n") == 1


def test_a_further_signal_while_an_error_is_handled_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class UnluckyError(OSError):
        @property
        def filename(self) -> str:
            raise KeyboardInterrupt

    assert outcome(raising(UnluckyError(5, "Input/output error")), monkeypatch) == 130
    assert capsys.readouterr().err == ""


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    """Not even the libraries of torch fit into 300 MB."""
    command = [sys.executable, "tdmpc2/train.py", *arguments(tmp_path / "runs")]
    limited = ["bash", "-c", 'ulimit -v 300000 && exec "$0" "$@"', *command]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done
    assert done.stderr.splitlines()[-1].startswith("error: not enough memory (")
    assert not (tmp_path / "runs").exists()


def test_memory_errors_are_told_from_others() -> None:
    assert out_of_memory(MemoryError()) == "MemoryError"
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried\nmore")) == (
        "CUDA out of memory. Tried"
    )
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory")) is not None
    assert out_of_memory(ValueError("out of memory")) is None
    chained = KeyError("triton")
    chained.__context__ = MemoryError("x.")
    assert out_of_memory(chained) == "x"
    assert out_of_memory(KeyError("triton")) is None


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RuntimeError("can't start new thread"), "thread"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "process"),
    ],
)
def test_too_few_processes_are_one_line(
    error: Exception, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "tdmpc2.train", "error": error}
    exec("def main(arguments):\n    raise error", names)  # else an error of the user's code
    assert outcome(names["main"], monkeypatch) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: no further {what} can be started; saved files are intact")
    assert "`ulimit -u`" in printed


def test_an_unforeseen_error_leaves_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    ours: dict[str, Any] = {"__name__": "sweeps.launch"}
    exec("def main(arguments): raise ZeroDivisionError('a\\nfault')", ours)
    assert outcome(ours["main"], monkeypatch) == 70
    told = capsys.readouterr().err
    (path,) = (tmp_path / "errors").iterdir()
    assert told == (
        f"error: unforeseen ZeroDivisionError: a\\nfault; please report it with the file {path}\n"
    )
    assert "Traceback" in path.read_text()


def test_an_error_in_code_of_the_user_names_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if it is raised by a package that this code called."""
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    (tmp_path / "own.py").write_text("import json\n\ndef main(arguments):\n    json.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert outcome(load_object("method=own:main", "own:main"), monkeypatch) == 2
    told = capsys.readouterr().err
    (path,) = (tmp_path / "errors").iterdir()
    assert told.startswith("error: JSONDecodeError: Expecting property name")
    assert told.endswith(f"(own.py, line 4); correct it; traceback: {path}\n")
    assert told.count("\n") == 1


def test_code_of_the_user_cannot_choose_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    (tmp_path / "leaves.py").write_text("import sys\n\ndef main(arguments):\n    sys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert outcome(load_object("method=leaves:main", "leaves:main"), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: SystemExit: 0 (leaves.py, line 4); correct")


@pytest.mark.parametrize(
    "text", ["a=1\n2", "a=\x1b[31m", "--a=\x00", "a\r=1", "a=\udcff", "a=\u2028"]
)
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="contains a control character"):
        cli.split_arguments([text])


def test_one_line_keeps_everything_else() -> None:
    text = "task=walker — 3 × 4, é, 漢字, 🙂"
    assert one_line(text) == text


def test_paths_of_unknown_users_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("~no-such-user/x", ""):
        with pytest.raises(UserError, match=r"runs=.*: a path is needed"):
            user_path(text, "runs")
    assert user_path("~/x", "runs") == Path.home() / "x"
    monkeypatch.setenv("MS2_ASSET_DIR", "~no-such-user/x")
    with pytest.raises(UserError, match="MS2_ASSET_DIR=~no-such-user/x: a path is needed"):
        asset_dir()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("path", ["tdmpc2/train.py", "sweeps/launch.py", "ablations/run.py"])
def test_help_on_a_terminal_of_another_encoding(encoding: str, path: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / path, "--help"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).count("\n") > 10


@pytest.mark.parametrize("path", ["tdmpc2/train.py", "sweeps/status.py", "analysis/report.py"])
def test_a_user_without_name_and_home(path: str, tmp_path: Path) -> None:
    """As in containers with an arbitrary user id."""
    command = [sys.executable, "-c", NO_HOME, str(ROOT / path)]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [*command, "runs=~/x"], capture_output=True, text=True, cwd=ROOT, env=os.environ
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_cache_of_a_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert str(os.getuid()) in cache_dir().name


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweeps/status.py", "runs={long}"),
        ("sweeps/launch.py", "tasks=toy-pointmass", "seeds=1", "runs={long}"),
        ("analysis/report.py", "runs={long}"),
        ("tdmpc2/evaluate.py", "run={long}"),
    ],
)
def test_a_name_that_is_too_long(arguments: tuple[str, ...], tmp_path: Path) -> None:
    path, *rest = (text.format(long=tmp_path / ("x" * 300)) for text in arguments)
    line = [sys.executable, ROOT / path, *rest]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["sweeps/launch.py", "tdmpc2/train.py"])
def test_no_disk_can_be_written(path: str, tmp_path: Path) -> None:
    """Neither the folder of runs, nor the cache, nor a folder for temporary files."""
    work = [
        "import resource, runpy, sys",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
        "sys.argv = sys.argv[1:]",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
    ]
    options = ["seeds=1", "cluster=inline"] if path == "sweeps/launch.py" else ["seed=1"]
    key = "tasks" if path == "sweeps/launch.py" else "task"
    options += [f"{key}=toy-pointmass", f"runs={tmp_path / 'runs'}"]
    command = [sys.executable, "-c", "\n".join(work), str(ROOT / path), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "free some space" in done.stderr


@pytest.mark.parametrize("path", ["analysis/make_figures.py", "analysis/report.py"])
def test_a_command_started_from_a_notebook(path: str, tmp_path: Path) -> None:
    """Matplotlib refuses the backend that notebooks set if its package is missing."""
    write_run(tmp_path / "runs", [(0, 10.0), (100_000, 500.0)])
    options = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"]
    options += ["only=learning_curves"] * ("figures" in path)
    done = subprocess.run(
        [sys.executable, ROOT / path, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "module://no_such_package.backend"},
    )
    assert done.returncode == 0, done.stderr
