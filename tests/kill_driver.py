"""The train command in a subprocess that can receive a signal at a chosen point.

The point is the n-th call of a named function, which the driver wraps from outside. The production
code needs no hooks, and the timing is deterministic. Processes are forked from a server that has
imported torch; processes that use a GPU are started from scratch.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Literal, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
# Importing torch._dynamo counts the GPUs; a process forked after that cannot use CUDA.
FRESH_CONTEXT = multiprocessing.get_context("spawn")
# Modules that runs import. A function that a `Blow` wraps is then wrapped in its own module only,
# not in the modules that have imported it.
CONTEXT.set_forkserver_preload(
    ["tdmpc2.runners.online", "tdmpc2.runners.offline", "tdmpc2.agent", "sacred", "triton"]
)


@dataclass(frozen=True)
class Blow:
    """A signal that the process sends to itself at a chosen call of a function.

    Attributes:
        function: name of the function, `"module:name"` or `"module:Class.name"`.
        call: number of the call, counted from 1.
        when: before or after the call, or after the call with its file truncated to half of what
            the call wrote.
        number: signal to send; None pauses the process there until `Command.go_on`.
    """

    function: str
    call: int = 1
    when: Literal["before", "after", "half"] = "before"
    number: signal.Signals | None = signal.SIGKILL


@dataclass(frozen=True)
class AnyCall:
    """SIGKILL at a call or return of any function, also of a built-in one, in the main thread.

    Attributes:
        number: how many calls and returns come before; None for no signal, only to count them.
    """

    number: int | None = None


class Done(NamedTuple):
    """Result of a command: exit code (negative: killed by that signal), stdout and stderr."""

    code: int
    out: str
    err: str


@dataclass
class Command:
    """`python -m MODULE` in a subprocess.

    Attributes:
        arguments: arguments of the command.
        blow: signal to send at a chosen point; None for none. With `AnyCall`, the attribute `calls`
            then holds the number of calls and returns, to a thousand.
        file_size: largest file that the process may write, in bytes; simulates a full disk.
        env: additional environment variables; its `PYTHONPATH` is searched for modules, too.
        module: module of the command, with functions `main` and `usage`.
    """

    arguments: Sequence[str]
    blow: Blow | AnyCall | None = None
    file_size: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    module: str = "tdmpc2.train"

    def __post_init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        on_gpu = any(argument.startswith("device=cuda") for argument in self.arguments)
        context = FRESH_CONTEXT if on_gpu else CONTEXT
        self._reached, self._go_on = context.Event(), context.Event()
        self.calls = context.RawValue("q")
        held = (self._reached, self._go_on, self.calls)
        args = (self.arguments, self.blow, self.file_size, self.env, self._streams, held)
        self._process = context.Process(target=_run, args=(self.module, *args))

    def start_and_reach(self) -> int:
        """Start the command, wait until it pauses at its blow, and return its process id."""
        self._process.start()
        self._reached.wait()
        assert self._process.pid is not None
        return self._process.pid

    def go_on(self) -> Done:
        """Let a paused process continue, and wait for its end."""
        self._go_on.set()
        return self._end()

    def run(self) -> Done:
        """Run the command to its end."""
        self._process.start()
        return self._end()

    def _end(self) -> Done:
        self._process.join()
        assert self._process.exitcode is not None
        done = Done(self._process.exitcode, *(path.read_text() for path in self._streams))
        self._folder.cleanup()
        return done


def _run(
    module: str,
    arguments: Sequence[str],
    blow: Blow | AnyCall | None,
    file_size: int | None,
    env: Mapping[str, str],
    streams: Sequence[Path],
    held: tuple[Any, Any, Any],
) -> None:
    """Run the train command; the main function of the subprocess."""
    for stream, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    command = importlib.import_module(module)
    from tdmpc2.common.system import cli

    reached, go_on, calls = held
    if isinstance(blow, Blow):
        _strike(blow, reached, go_on)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = [module, *arguments]
    if isinstance(blow, AnyCall):
        _count(blow, calls)
    sys.exit(cli.command(command.main, command.usage))


def _strike(blow: Blow, reached: Any, go_on: Any) -> None:
    """Wrap the function of a blow in this process."""
    module, _, path = blow.function.partition(":")
    *outer, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for attribute in outer:
        owner = getattr(owner, attribute)
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def hit() -> None:
        if blow.number is not None:
            os.kill(os.getpid(), blow.number)
        else:
            reached.set()
            go_on.wait()

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        now = calls == blow.call
        if now and blow.when == "before":
            hit()
        result = function(*args, **kwargs)
        if now and blow.when == "half":
            _halve(args)
        if now and blow.when != "before":
            hit()
        return result

    setattr(owner, name, wrapper)


def _count(blow: AnyCall, total: Any) -> None:
    """Count calls and returns from here on, and kill the process at that of the blow."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if count == blow.number:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        if count % 1000 == 0:
            total.value = count

    sys.setprofile(profile)


def _halve(args: Sequence[Any]) -> None:
    """Truncate the file that a call has just written, as if the write had stopped half-way."""
    for arg in args:
        if hasattr(arg, "fileno"):  # an open file: half of it
            arg.flush()
            os.ftruncate(arg.fileno(), os.fstat(arg.fileno()).st_size // 2)
            return
        if hasattr(arg, "path"):  # a CSV record: half of its last line
            text = arg.path.read_bytes()
            start = text[:-1].rfind(b"\n") + 1
            os.truncate(arg.path, (start + len(text)) // 2)
            return
    raise AssertionError("no file among the arguments")
