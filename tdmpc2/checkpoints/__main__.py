"""Inspect, convert, evaluate and download trained models: `python -m tdmpc2.checkpoints`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tdmpc2.checkpoints import names
from tdmpc2.checkpoints.fetch import fetch, url_of
from tdmpc2.checkpoints.options import (
    EvaluateOptions,
    ExportOptions,
    FetchOptions,
    ImportOptions,
    InspectOptions,
)
from tdmpc2.common.run.spec import parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Kind, Settings
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import cache_dir

T = TypeVar("T", bound=Settings)
OPTIONS: dict[str, type[Settings]] = {
    "inspect": InspectOptions,
    "import": ImportOptions,
    "export": ExportOptions,
    "evaluate": EvaluateOptions,
    "fetch": FetchOptions,
}


def default_folder() -> Path:
    """Return the default folder of fetched checkpoints."""
    return cache_dir() / "checkpoints"


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python -m tdmpc2.checkpoints inspect FILE
       python -m tdmpc2.checkpoints import FILE task=TASKS out=NEW
       python -m tdmpc2.checkpoints export FILE out=NEW [format=official]
       python -m tdmpc2.checkpoints evaluate FILE task=TASK [key=value …]
       python -m tdmpc2.checkpoints fetch NAME [key=value …]

Inspect, convert, evaluate and download trained TD-MPC2 models.

FILE is an official TD-MPC2 checkpoint (old or new keys, .pt or .safetensors), a model file of this
project, or a run directory or one of its checkpoints/... Only tensors and plain containers are
loaded from torch files, never code. No file is overwritten.

inspect   print format, size, parameters, dimensions, possible tasks, unknown keys and checksum
import    write FILE as a model file, which contains tasks, configuration and origin
{cli.describe_fields(ImportOptions, without=["file"])}
export    write FILE in the official format or as safetensors
{cli.describe_fields(ExportOptions, without=["file"])}
evaluate  run episodes without exploration; print return, success and normalized score
{cli.describe_fields(EvaluateOptions, without=["file"])}
fetch     download the authors' released checkpoints; existing files are skipped, and interrupted
          downloads are continued; default folder: {default_folder()}
{cli.describe_fields(FetchOptions)}

Exit code: 0 success; 2 bad input, or a file that is missing, damaged or rejected."""


def schema(arguments: Sequence[str]) -> Mapping[str, Kind]:
    """Return the options of the action that the arguments begin with."""
    return cli.schema_of(*(OPTIONS[action] for action in arguments[:1] if action in OPTIONS))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an unknown action or an invalid option.
    """
    action, *rest = arguments or [""]
    if action not in OPTIONS:
        raise UserError(f"'{action}': unknown action{did_you_mean(action, OPTIONS)}")
    options = _parse(rest, OPTIONS[action])
    if isinstance(options, FetchOptions):
        _fetch(options)
    else:
        from tdmpc2.checkpoints.actions import ACTIONS

        ACTIONS[action](options)
    return 0


def _parse(arguments: Sequence[str], options: type[T]) -> T:
    """Parse the arguments after the action; the key of the first, `file` or `name`, may be omitted.

    Args:
        arguments: the arguments.
        options: dataclass of the options.
    """
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("--"):
        key, equals, _ = arguments[0].partition("=")
        # A path may contain an equals sign; a key contains neither a slash nor a dot.
        if not equals or "/" in key or "." in key or Path(arguments[0]).exists():
            first = next(iter(cli.schema_of(options)))
            arguments[0] = f"{first}={arguments[0]}"
    return cli.parse_options(arguments, options)


def _fetch(options: FetchOptions) -> None:
    seeds = parse_seeds(options.seeds)
    paths = names.expand(options.name, seeds=seeds, single=options.single, multi=options.multi)
    sha256 = options.sha256
    if sha256 is not None and (len(paths) > 1 or not re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise UserError(f"sha256={sha256}: needs 64 hexadecimal digits and a single file")
    if options.dry_run:
        print("\n".join(url_of(options.url, path) for path in paths))
    else:
        fetch(paths, options.out or default_folder(), options.url, sha256=sha256)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
