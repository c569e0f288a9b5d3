"""Frame of every command: `--help`, error messages and exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tdmpc2.common.system.atomic_files import full_disk
from tdmpc2.common.system.errors import StoppedError, UserError, one_line
from tdmpc2.common.system.file_errors import LIMITS, advice, cause_of, disk_error
from tdmpc2.common.system.memory_errors import out_of_memory, out_of_processes
from tdmpc2.common.system.paths import PACKAGES, cache_dir, packages_root
from tdmpc2.common.system.streams import (
    READER_GONE,
    make_lasting,
    open_closed_streams,
    output_error,
)
from tdmpc2.common.system.user_code import described, place_in_user_code

RUN_EXIT_CODES = (
    "Exit code: 0 completed; 1 diverged; 2 bad input, a refused resume, an error in your own",
    "code, or something the machine lacks (disk space, memory, processes, access to a file);",
    "70 a fault of this program; 130 stopped by a signal, the same command resumes.",
)
"""Exit codes of commands that train a run, as lines of their `--help`."""

# Begin of the message of `tempfile` if no folder for temporary files can be written.
NO_TEMPORARY = "No usable temporary directory"


def command(main: Callable[[Sequence[str]], int], usage: Callable[[], str]) -> int:
    """Run the `main` function of a command: handle `--help` and turn errors into exit codes.

    Invalid input, a full disk and a file that cannot be used print one line to stderr. So does an
    unforeseen error, which is a fault of the program, and an error in code of the user, such as a
    method of her own; their tracebacks are written to a file.

    A command does its work to the end if the reader of its output (`head`, a terminal) is gone.

    Returns:
        The exit code: 0 for `--help`, 2 for a `UserError`, an error of the file system, a lack of
        memory or processes, or an error or `sys.exit` in code of the user, 70 for an unforeseen
        error, 130 for a `StoppedError` or a `KeyboardInterrupt`, also one while another error is
        handled, else the return value of `main`.
    """
    open_closed_streams()
    _remove_own_folder_from_path()
    # No command opens a window. Notebooks set a backend that may be missing in this environment.
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # show what the terminal cannot show as ?
            stream.reconfigure(errors="replace")
    make_lasting()
    try:
        code = _exit_code(main, usage, sys.argv[1:])
    except KeyboardInterrupt:  # a further signal, while an error was handled
        code = 130
    lost = output_error()
    if code or lost is None or lost.errno in READER_GONE:
        return code
    return _fail(
        f"standard output: {lost.strerror}, so some of the output is missing; free some space or "
        "redirect the output elsewhere, and run the same command again"
    )


def _remove_own_folder_from_path() -> None:
    """Remove the folder of the script from the search path, where Python puts it first.

    The modules in it would hide modules of the user that have the same names, such as `agent`.
    """
    first = sys.path[0] if sys.path else ""
    own = [packages_root() / package for package in PACKAGES]
    if first and any(Path(first).resolve().is_relative_to(folder) for folder in own):
        del sys.path[0]


def _exit_code(
    main: Callable[[Sequence[str]], int], usage: Callable[[], str], arguments: Sequence[str]
) -> int:
    """Run a command and return its exit code, see `command`."""
    try:
        if any(argument in ("-h", "--help", "help") for argument in arguments):
            print(usage())
            return 0
        return main(arguments)
    except UserError as error:
        return _fail(str(error))
    except StoppedError as error:
        print(f"{error}; run the same command again to continue", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:  # the exit code of a run must not be that of code of the user
        if place_in_user_code(error) is None:
            raise
        return _fail(f"{described(error)}; correct it; traceback: {_write_traceback()}")
    except Exception as error:
        full = full_disk(error)
        if full is not None:
            return _fail(
                f"no space left ({full.strerror}); saved files are intact: free some "
                "space and run the same command again"
            )
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}; {advice(error)}")
        if isinstance(error, FileNotFoundError) and NO_TEMPORARY in str(error):
            return _fail(f"{error.strerror}; free some space, or set TMPDIR to a writable folder")
        if place_in_user_code(error) is not None:
            return _fail(f"{described(error)}; correct it; traceback: {_write_traceback()}")
        passing = disk_error(error) or cause_of(error, LIMITS)
        if passing is not None:
            place = "" if passing.filename is None else f"{passing.filename}: "
            return _fail(f"{place}{passing.strerror}; saved files are intact: {advice(passing)}")
        lacking = out_of_memory(error)
        if lacking is not None:
            return _fail(
                f"not enough memory ({lacking}); saved files are intact: free some, or raise the "
                "limit (`ulimit -v`, or mem_gb= of a launch), and run the same command again"
            )
        unstarted = out_of_processes(error)
        if unstarted is not None:
            return _fail(
                f"{unstarted} can be started; saved files are intact: end others, or raise the "
                "limit (`ulimit -u`, or that of the container), and run the same command again"
            )
        return _fail(
            f"unforeseen {type(error).__name__}: {error}; please report it with the file "
            f"{_write_traceback()}",
            code=70,
        )


def _fail(message: str, code: int = 2) -> int:
    """Print an error message as one line and return the exit code."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code


def _write_traceback() -> Path:
    """Write the traceback of the current exception to a new file and return its path."""
    for choice in (lambda: cache_dir() / "errors", lambda: Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):  # `gettempdir` also raises one if all disks are full
            folder = choice()
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(".log", "error-", folder)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(traceback.format_exc())
            return Path(path)
    return Path(os.devnull)
