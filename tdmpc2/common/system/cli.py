"""Parsing of `key=value` command-line arguments, `--help` texts and exit codes."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from tdmpc2.common.system.atomic_files import full_disk
from tdmpc2.common.system.errors import UserError, did_you_mean

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def split_arguments(arguments: Iterable[str]) -> dict[str, str]:
    """Split `key=value` arguments into a dictionary; leading dashes of keys are ignored.

    Raises:
        UserError: an argument is not of the form `key=value`, or a key appears twice.
    """
    pairs: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not equals or not key:
            raise UserError(f"'{argument}' is not of the form key=value (see --help)")
        if key in pairs:
            raise UserError(f"'{key}' is given twice: {key}={pairs[key]} and {argument}")
        pairs[key] = value
    return pairs


def parse_arguments(arguments: Iterable[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `key=value` arguments into values of the types that a schema declares.

    Args:
        arguments: arguments of the command line.
        schema: type of each valid key.

    Raises:
        UserError: a key is unknown (the message names the nearest valid one), or a value does not
            have the declared type.
    """
    values = {}
    for key, text in split_arguments(arguments).items():
        if key not in schema:
            raise UserError(f"unknown key '{key}'{did_you_mean(key, schema)}")
        values[key] = parse_value(key, text, schema[key])
    return values


def parse_value(key: str, text: str, kind: Any) -> Any:
    """Parse the text of one value.

    Args:
        key: name of the option, for error messages.
        text: text to parse.
        kind: type of the value: int, float, bool, str, Path, Literal, or Optional of these.

    Raises:
        UserError: the text is not a value of that type.
    """
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in options and text.lower() in ("none", ""):
            return None
        return parse_value(key, text, next(o for o in options if o is not type(None)))
    if origin is Literal:
        if text not in options:
            raise UserError(f"{key}={text}: unknown value{did_you_mean(text, options)}")
        return text
    try:
        if kind is bool:
            return _parse_bool(text)
        if kind is int:
            return _parse_int(text)
        if kind is Path:
            return _parse_path(text)
        if kind is float:
            return _parse_float(text)
        return kind(text)
    except (ValueError, OverflowError):
        expected = {bool: "true or false", float: "a finite number", Path: "a path"}.get(
            kind, f"a value of type {kind.__name__}"
        )
        raise UserError(f"{key}={text}: {expected} is needed") from None


def _parse_bool(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError(text)


def _parse_int(text: str) -> int:
    """Parse an integer, also written as `100_000` or `1e5`."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if number != int(number):
            raise ValueError(text) from None
        return int(number)


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_path(text: str) -> Path:
    """Parse a path; an empty text is an error.

    An empty text usually comes from an unset shell variable and would mean the current directory.
    """
    if not text:
        raise ValueError(text)
    return Path(text).expanduser().resolve()


@cache
def schema_of(cls: type) -> Mapping[str, Any]:
    """Return the names and types of the fields of a dataclass."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType({f.name: hints[f.name] for f in dataclasses.fields(cls)})


def describe_fields(cls: type) -> str:
    """Return one line of help per field of a dataclass: name, default, valid values, meaning."""
    lines = []
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        text = f.metadata.get("help", "")
        text = text() if callable(text) else text  # for names that plugins can add
        if typing.get_origin(hints[f.name]) is Literal:
            text = f"{' | '.join(map(str, typing.get_args(hints[f.name])))}  {text}".rstrip()
        lines.append(f"  {f.name + '=' + shown:<42} {text}".rstrip())
    return "\n".join(lines)


def command(main: Callable[[Sequence[str]], int], usage: Callable[[], str]) -> int:
    """Run the `main` function of a command: handle `--help` and turn errors into exit codes.

    Invalid input and a full disk print one line to stderr.

    Returns:
        The exit code: 0 for `--help`, 2 for a `UserError` or a full disk, 130 for a
        `KeyboardInterrupt`, else the return value of `main`.
    """
    arguments = sys.argv[1:]
    try:
        if any(argument in ("-h", "--help", "help") for argument in arguments):
            print(usage())
            return 0
        return main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output (head, less) has exited
        sys.stdout = None
        return 0
    except OSError as error:
        if full_disk(error) is None:
            raise
        print(
            f"error: no space left ({error.strerror}); saved files are intact: free some space "
            "and run the same command again",
            file=sys.stderr,
        )
        return 2
