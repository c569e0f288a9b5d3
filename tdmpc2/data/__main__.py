"""Build, convert, inspect and verify multi-task datasets: `python -m tdmpc2.data`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Kind, Settings
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.data.options import BuildOptions, ConvertOptions, InspectOptions, VerifyOptions


class _Command(NamedTuple):
    """One subcommand."""

    options: type[Settings]
    text: str


COMMANDS = {
    "build": _Command(BuildOptions, "build a dataset from the replay data of finished runs"),
    "convert": _Command(ConvertOptions, "convert the files of an official dataset"),
    "inspect": _Command(InspectOptions, "show episodes, returns and shares of the tasks"),
    "verify": _Command(VerifyOptions, "check all checksums, episodes and values"),
}

_DETAILS = {
    "build": (
        "Train the runs with keep_replay=true. Every task needs at least one finished run; runs",
        "that cannot be used are listed and skipped. If the build is interrupted, run the same",
        "command again to continue it.",
    ),
    "convert": (
        "All files are checked before the first shard is written. The pickles in the files may",
        "refer only to tensors and TensorDicts; the tensordict package is not needed.",
    ),
    "inspect": ("All rewards are read. The last column is a histogram of returns.",),
    "verify": ("One line is printed per fault; the exit code is 2 if there is any.",),
}


def usage(arguments: Sequence[str] = ()) -> str:
    """Return the text of `--help` for the subcommand in the arguments, or the overview."""
    name = next((argument for argument in arguments if argument in COMMANDS), None)
    if name is None:
        return "\n".join(
            [
                f"usage: python -m tdmpc2.data {'|'.join(COMMANDS)} key=value …",
                "       python -m tdmpc2.data COMMAND --help",
                "",
                "Manage multi-task datasets for offline training.",
                "",
                *(f"  {name:<9}{each.text}" for name, each in COMMANDS.items()),
            ]
        )
    return "\n".join(
        [
            f"usage: python -m tdmpc2.data {name} key=value …",
            "",
            f"{COMMANDS[name].text.capitalize()}.",
            *_DETAILS[name],
            "",
            cli.describe_fields(COMMANDS[name].options),
        ]
    )


def schema(arguments: Sequence[str]) -> Mapping[str, Kind]:
    """Return the options of the subcommand that the arguments begin with."""
    return cli.schema_of(*(COMMANDS[name].options for name in arguments[:1] if name in COMMANDS))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a missing or unknown subcommand, or an invalid option.
    """
    if not arguments:
        raise UserError(f"no command is given (valid: {', '.join(COMMANDS)}; see --help)")
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"'{name}': unknown command{did_you_mean(name, COMMANDS)}")
    options = cli.parse_options(rest, COMMANDS[name].options)
    from tdmpc2.data.actions import ACTIONS

    ACTIONS[name](options)
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: usage(sys.argv[1:])))
