"""Code of users, which settings name: its import, and the place of an error in it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from tdmpc2.common.system.errors import UserError, did_you_mean, one_line
from tdmpc2.common.system.paths import PACKAGES

CURE = "install it, or add its folder to PYTHONPATH"
STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
INSTALLED = ("site-packages", "dist-packages")  # folders of installed packages
OURS = (*PACKAGES, "benchmarks", "__main__")
_named: set[str] = set()  # packages of the user that settings or entry points named


def load_module(what: str, name: str, cure: str = CURE) -> ModuleType:
    """Import a module of the user.

    Args:
        what: the setting that names it, for messages.
        name: name of the module.
        cure: what to do if it cannot be imported.

    Raises:
        UserError: it cannot be imported, or ends the process. Other errors in its code pass;
            `command` states their place.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{what}: '{name}' is no name of a module; write it as package.module")
    _named.add(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{what}: cannot be imported ({error}); {cure}") from error
    except SystemExit as error:
        raise UserError(
            f"{what}: ends the process when it is imported (exit code {error.code}); put its "
            'commands below if __name__ == "__main__":'
        ) from error


def load_object(what: str, target: str, cure: str = CURE) -> Any:
    """Return the object that `"package.module:Name"` names.

    Args:
        what: the setting that names it, for messages.
        target: name of the object.
        cure: what to do if its module cannot be imported.

    Raises:
        UserError: as for `load_module`, or the module has no such object.
    """
    module, _, path = target.partition(":")
    found: Any = load_module(what, module, cure)
    for name in path.split("."):
        if not hasattr(found, name):
            similar = difflib.get_close_matches(name, dir(found))
            raise UserError(f"{what}: {module} has no '{path}'{did_you_mean(name, similar)}")
        found = getattr(found, name)
    return found


def message_of(error: BaseException) -> str:
    """Return the message of an error, to be followed by more text."""
    return one_line(error).rstrip(". ") or "no message"


def described(error: BaseException) -> str:
    """Return type, message and place of an error: in the user's code, else where it was raised."""
    place, frames = place_in_user_code(error), list(traceback.walk_tb(error.__traceback__))
    if place is None and frames:
        frame, line = frames[-1]
        place = _short(frame.f_code.co_filename, line)
    text = f"{type(error).__name__}: {message_of(error)}"
    stated = place is None or place in text  # the message of a syntax error states it
    return text if stated else f"{text} ({place})"


def place_in_user_code(error: BaseException) -> str | None:
    """Return the place in code of the user that an error comes from, e.g. `method.py, line 3`.

    None if the error comes from this project, or from a package that this project called, unless a
    setting or an entry point named that package. The place of a syntax error is that of the faulty
    text.
    """
    if isinstance(error, SyntaxError) and error.filename and not _is_library(error.filename):
        return _short(error.filename, error.lineno)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in OURS:
            return None
        if package in _named or not _is_library(frame.f_code.co_filename):
            return _short(frame.f_code.co_filename, line)
    return None


def place_of_definition(function: Any) -> str | None:
    """Return the place where a function is defined if that is code of the user, else None."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    if code is None or _is_library(code.co_filename):
        return None
    if str(getattr(function, "__module__", None)).partition(".")[0] in OURS:
        return None
    return _short(code.co_filename, code.co_firstlineno)


def _is_library(filename: str) -> bool:
    """Return whether a file belongs to Python or to an installed package."""
    if filename.startswith("<"):  # frozen modules, and code that was generated
        return True
    path = Path(filename).resolve()
    standard = any(path.is_relative_to(folder) for folder in STANDARD)
    return standard or any(folder in path.parts for folder in INSTALLED)


def _short(filename: str, line: int | None) -> str:
    path = Path(filename)
    name = f"{path.parent.name}/{path.name}" if path.name == "__init__.py" else path.name
    return f"{name}, line {line}"
