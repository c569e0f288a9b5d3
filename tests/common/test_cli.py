"""`key=value` arguments: parsing, hints, help and exit codes."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class Options(Settings):
    """One field of every supported type."""

    count: int = 3
    rate: float = setting(0.5, "how fast")
    on: bool = True
    name: str = "x"
    mode: Literal["slow", "fast"] = setting("slow", "how")
    limit: int | None = setting(None, "the most", low=1, high=20_000)
    folder: Path = setting(lambda: Path("/somewhere"), "")
    deep: bool | None = None


SCHEMA = cli.schema_of(Options)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("count=7", 7),
        ("count=-7", -7),
        ("count=100_000", 100_000),
        ("count=1e5", 100_000),
        ("count=2.0", 2),
        ("--count=7", 7),
        ("rate=3e-4", 3e-4),
        ("rate=1", 1.0),
        ("on=false", False),
        ("on=No", False),
        ("on=0", False),
        ("on=ON", True),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("mode=fast", "fast"),
        ("limit=none", None),
        ("limit=", None),
        ("limit=4", 4),
        ("folder=/a/../b", Path("/b")),
        ("folder=~", Path.home()),
    ],
)
def test_values_of_every_type(argument: str, value: object) -> None:
    (parsed,) = cli.parse_arguments([argument], SCHEMA).values()
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_relative_folder_becomes_absolute() -> None:
    assert cli.parse_arguments(["folder=here"], SCHEMA) == {"folder": Path.cwd() / "here"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("cuont=1", "unknown key 'cuont' (did you mean 'count'?)"),
        ("zzz=1", "unknown key 'zzz' (valid: count, deep, folder, limit, mode, name, on, rate)"),
        ("count=1.5", "count=1.5: an integer is needed"),
        ("count=", "count=: an integer is needed"),
        ("count=inf", "count=inf: an integer is needed"),
        ("limit=many", "limit=many: an integer in [1, 20_000] is needed"),
        ("rate=fast", "rate=fast: a finite number is needed"),
        ("rate=nan", "rate=nan: a finite number is needed"),
        ("rate=-inf", "rate=-inf: a finite number is needed"),
        ("on=2", "on=2: true or false is needed"),
        ("mode=fats", "mode=fats: unknown value (did you mean 'fast'?)"),
        ("mode=", "mode=: unknown value (valid: fast, slow)"),
        ("folder=", "folder=: a path is needed"),
        ("count", "'count' is not of the form key=value (see --help)"),
        ("=1", "'=1' is not of the form key=value (see --help)"),
        ("--=1", "'--=1' is not of the form key=value (see --help)"),
    ],
)
def test_bad_arguments(argument: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        cli.parse_arguments([argument], SCHEMA)
    assert str(caught.value) == message


@pytest.mark.parametrize("second", [["--count=2"], ["--count", "2"], ["count=2"]])
def test_a_key_may_be_given_once(second: list[str]) -> None:
    shown = " ".join(second)
    with pytest.raises(UserError, match=f"'count' is given twice: count=1 and {shown}"):
        cli.parse_arguments(["count=1", *second], SCHEMA)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("count=7 name=a", {"count": 7, "name": "a"}),
        ("--count=7 --name=a", {"count": 7, "name": "a"}),
        ("--count 7 --name a", {"count": 7, "name": "a"}),
        ("--count -7 name=-a", {"count": -7, "name": "-a"}),
        ("--name a=b count=1", {"name": "a=b", "count": 1}),
        ("--name=--count", {"name": "--count"}),
        ("--on", {"on": True}),
        ("--on --count 7", {"on": True, "count": 7}),
        ("--on count=7", {"on": True, "count": 7}),
        ("--on no --deep", {"on": False, "deep": True}),
        ("--deep none --on false", {"deep": None, "on": False}),
    ],
)
def test_every_form_of_an_argument(line: str, values: dict[str, object]) -> None:
    assert cli.parse_arguments(line.split(), SCHEMA) == values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--cuont 1", "unknown key 'cuont' (did you mean 'count'?)"),
        ("--count 1.5", "count=1.5: an integer is needed"),
        ("--mode fats", "mode=fats: unknown value (did you mean 'fast'?)"),
        ("--on perhaps", "'perhaps' is not of the form key=value (see --help)"),
        ("--count", "--count: a value is needed, as in count=VALUE (see --help)"),
        ("--count --on", "--count: a value is needed, as in count=VALUE (see --help)"),
        ("--", "'--' is not of the form key=value (see --help)"),
        ("-count 1", "'-count' is not of the form key=value (see --help)"),
    ],
)
def test_bad_arguments_of_other_forms(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        cli.parse_arguments(line.split(), SCHEMA)
    assert str(caught.value) == message


def test_dashes_in_names_equal_underscores() -> None:
    assert cli.split_arguments(["eval-every=1", "--dry-run", "--a-b", "2"], {"dry_run"}) == {
        "eval_every": "1",
        "dry_run": "true",
        "a_b": "2",
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a=1 mode=x", "x"),
        ("--mode=x", "x"),
        ("--mode x a=1", "x"),
        ("--mode", ""),
        ("mode", None),
        ("", None),
    ],
)
def test_peek_finds_a_value_in_every_form(line: str, found: str | None) -> None:
    assert cli.peek(line.split(), "mode") == found


def test_required_options() -> None:
    @dataclass(frozen=True)
    class Needy(Settings):
        task: str = setting(REQUIRED, "what to learn")

    assert cli.parse_options(["--task", "walk"], Needy).task == "walk"
    with pytest.raises(UserError, match="task= is missing: what to learn \\(see --help\\)"):
        cli.parse_options([], Needy)


def test_fields_are_described_with_type_default_range_and_meaning() -> None:
    lines = cli.describe_fields(Options, without=["deep"]).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["count=3", "integer"],
        ["rate=0.5", "number  how fast"],
        ["on=true", "true | false"],
        ["name=x", "text"],
        ["mode=slow", "slow | fast  how"],
        ["limit=", "integer in [1, 20_000]  the most"],
        ["folder=/somewhere", "path"],
    ]


def run(monkeypatch: pytest.MonkeyPatch, outcome: Any, *arguments: str) -> int:
    """Return the exit code of a command whose `main` returns or raises `outcome`."""

    def main(given: Sequence[str]) -> int:
        assert list(given) == list(arguments)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    return cli.command(main, lambda: "usage: command")


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (UserError("no such thing"), 2, "error: no such thing\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: no space left (No space left on device); saved files are intact: free "
            "some space and run the same command again\n",
        ),
    ],
)
def test_exit_codes(
    outcome: Any,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, outcome, "a=1") == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("argument", ["-h", "--help", "help"])
def test_help_wins(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, UserError("never reached"), "nonsense", argument) == 0
    assert capsys.readouterr() == ("usage: command\n", "")
