"""Parsing of command-line arguments (`key=value` or `--key value`), and `--help`."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tdmpc2.common.system.command import RUN_EXIT_CODES as RUN_EXIT_CODES
from tdmpc2.common.system.command import command as command
from tdmpc2.common.system.config_checks import REQUIRED, Kind, Settings, kind_of, kinds_of
from tdmpc2.common.system.errors import UserError, did_you_mean, one_line
from tdmpc2.common.system.paths import user_path

T = TypeVar("T", bound=Settings)
INDENT = 45  # column of the text in `describe_fields`
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
BOOLEANS = TRUE | FALSE | {"none"}


def peek(arguments: Iterable[str], key: str) -> str | None:
    """Return the value of an argument that decides which others are valid; None if not given."""
    following = list(arguments)
    while following:
        name, equals, value = following.pop(0).partition("=")
        if _plain(name) == key and (equals or name.startswith("--")):
            return value if equals else (following or [""])[0]
    return None


def flags_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the boolean options, which may be given as `--name`."""
    return frozenset(name for name, hint in schema.items() if _kind(hint).type is bool)


def split_arguments(arguments: Iterable[str], flags: Collection[str] = ()) -> dict[str, str]:
    """Split arguments into a dictionary of keys and texts.

    Valid forms: `key=value`, `--key=value`, `--key value` and, for boolean options, `--key`.
    Dashes in keys equal underscores.

    Args:
        arguments: arguments of the command line.
        flags: names of the boolean options.

    Raises:
        UserError: an argument has none of these forms or contains a control character, or a key
            appears twice.
    """
    pairs: dict[str, str] = {}
    shown: dict[str, str] = {}
    following = list(arguments)
    for argument in following:
        if one_line(argument) != argument:
            raise UserError(f"'{argument}' contains a control character")
    while following:
        argument = following.pop(0)
        name, equals, value = argument.partition("=")
        key = _plain(name)
        if not key or not (equals or name.startswith("--")):
            raise UserError(f"'{argument}' is not of the form key=value (see --help)")
        if not equals:
            value = _value_of(key, following, key in flags)
            argument = f"{name} {value}"
        if key in pairs:
            raise UserError(f"'{key}' is given twice: {shown[key]} and {argument}")
        pairs[key], shown[key] = value, argument
    return pairs


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _value_of(key: str, following: list[str], flag: bool) -> str:
    """Remove the value of `--key` from the arguments that follow it, and return it."""
    value = following[0] if following else "--"
    if value.lower() in BOOLEANS or not (flag or value.startswith("--")):
        return following.pop(0)
    if flag:
        return "true"
    raise UserError(f"--{key.replace('_', '-')}: a value is needed, as in {key}=VALUE (see --help)")


def parse_arguments(arguments: Iterable[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse arguments into values of the types that a schema declares.

    Args:
        arguments: arguments of the command line, in the forms of `split_arguments`.
        schema: type of each valid key, see `schema_of`.

    Raises:
        UserError: a key is unknown (the message names the nearest valid one), or a value does not
            have the declared type.
    """
    arguments = list(arguments)
    values = {}
    for key, text in split_arguments(arguments, flags_of(schema)).items():
        if key not in schema:
            raise UserError(f"unknown key '{key}'{did_you_mean(key, schema)}")
        values[key] = parse_value(key, text, schema[key])
    return values


def build(options: type[T], values: Mapping[str, Any]) -> T:
    """Create a dataclass of options from parsed values; other values are ignored.

    Raises:
        UserError: a required option is missing, or a value is out of range.
    """
    given = {}
    for f in dataclasses.fields(options):  # type: ignore[arg-type]
        if f.name in values:
            given[f.name] = values[f.name]
        elif f.default is f.default_factory is REQUIRED:
            raise UserError(f"{f.name}= is missing: {f.metadata['meaning']} (see --help)")
    return options(**given)


def parse_options(arguments: Iterable[str], options: type[T]) -> T:
    """Parse the arguments of a command whose options are the fields of one dataclass.

    Raises:
        UserError: a key is unknown, a value is invalid, or a required option is missing.
    """
    return build(options, parse_arguments(arguments, schema_of(options)))


def _kind(hint: Any) -> Kind:
    return hint if isinstance(hint, Kind) else kind_of(hint)


def parse_value(key: str, text: str, hint: Any) -> Any:
    """Parse the text of one value.

    Args:
        key: name of the option, for error messages.
        text: text to parse.
        hint: kind of the value, or its type, see `kind_of`. Ranges are part of error messages only;
            the dataclass checks them.

    Raises:
        UserError: the text is not a value of that type, or a relative path in a folder that no
            longer exists.
    """
    kind = _kind(hint)
    if kind.optional and text.lower() in ("none", ""):
        return None
    if kind.choices:
        if text not in kind.choices:
            raise UserError(f"{key}={text}: unknown value{did_you_mean(text, kind.choices)}")
        return text
    if kind.type is Path:
        # An empty text usually comes from an unset shell variable; it is an error.
        return user_path(text, key).resolve()
    try:
        return PARSERS.get(kind.type, kind.type)(text)
    except (ValueError, OverflowError):
        raise UserError(f"{key}={text}: {kind.needed} is needed") from None


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


PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
}


def schema_of(*settings: type) -> Mapping[str, Kind]:
    """Return the name and kind of each field of some dataclasses."""
    return {name: kind for one in settings for name, kind in kinds_of(one).items()}


def describe_fields(settings: type, *, without: Collection[str] = ()) -> str:
    """Return the help on the fields of a dataclass: name, default, valid values and meaning.

    Args:
        settings: dataclass whose fields are declared with `setting`.
        without: names of fields to leave out.
    """
    kinds, lines = kinds_of(settings), []
    for f in dataclasses.fields(settings):
        if f.name in without:
            continue
        default = f.default if f.default_factory is REQUIRED else f.default_factory()
        shown = "" if default in (None, REQUIRED) else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        meaning = f.metadata.get("meaning", "")
        meaning = meaning() if callable(meaning) else meaning  # for names that plugins can add
        text = f"{kinds[f.name]}  {meaning}".rstrip()
        first, *rest = textwrap.wrap(text, 100 - INDENT, break_on_hyphens=False)
        lines.append(f"  {f.name + '=' + shown:<{INDENT - 3}} {first}")
        lines += [" " * INDENT + line for line in rest]
    return "\n".join(lines)
