"""`key=value` arguments on the command line: parsing, checking, help and exit codes."""

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
    """Splits `key=value` arguments; each key may appear once."""
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
    """Parses `key=value` arguments by a schema.

    Args:
        arguments: the command line.
        schema: valid keys with their types.

    Raises:
        UserError: unknown key (with the nearest valid one) or a value of another type.
    """
    values = {}
    for key, text in split_arguments(arguments).items():
        if key not in schema:
            raise UserError(f"unknown key '{key}'{did_you_mean(key, schema)}")
        values[key] = parse_value(key, text, schema[key])
    return values


def parse_value(key: str, text: str, kind: Any) -> Any:
    """One value of a declared type: int, float, bool, str, Path, Literal, or Optional of these."""
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
        wanted = {bool: "true or false", float: "a finite number", Path: "a path"}.get(
            kind, f"a value of type {kind.__name__}"
        )
        raise UserError(f"{key}={text}: {wanted} is needed") from None


def _parse_bool(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError(text)


def _parse_int(text: str) -> int:
    """Also `100_000` and `1e5`."""
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
    """An empty text would mean the current directory, by a variable that was never set."""
    if not text:
        raise ValueError(text)
    return Path(text).expanduser().resolve()


@cache
def schema_of(cls: type) -> Mapping[str, Any]:
    """Names and types of a dataclass's fields."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType({f.name: hints[f.name] for f in dataclasses.fields(cls)})


def describe_fields(cls: type) -> str:
    """One line per field of a dataclass: name, default, valid values, help."""
    lines = []
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        text = f.metadata.get("help", "")
        if typing.get_origin(hints[f.name]) is Literal:
            text = f"{' | '.join(map(str, typing.get_args(hints[f.name])))}  {text}".rstrip()
        lines.append(f"  {f.name + '=' + shown:<42} {text}".rstrip())
    return "\n".join(lines)


def command(main: Callable[[Sequence[str]], int], usage: Callable[[], str]) -> int:
    """Runs a command's `main`: `--help`, one line for bad input, exit codes.

    Returns:
        0 done, 2 bad input or a full disk, 130 interrupted, else what `main` returns.
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
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stdout = None
        return 0
    except OSError as error:
        if full_disk(error) is None:
            raise
        print(
            f"error: no space left ({error.strerror}); what was saved before is whole: "
            "free some space and run the same command again",
            file=sys.stderr,
        )
        return 2
