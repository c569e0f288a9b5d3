"""Command line of `ablations/run.py`: the flags of the ablations, and options and settings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.specs import ABLATIONS
from sweeps.planning.options import LaunchOptions, SweepOptions
from sweeps.planning.request import Schema, schemas
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.task_variants import part

MULTITASK_SIZE = "19"
"""Model size of the paper's multi-task ablations, in millions of parameters."""
FIXED = ("suite", "methods", "variants", "variant", "sizes", "until", "against")
"""Options of a launch that the command sets itself."""


@dataclass(frozen=True)
class AblationOptions(Settings):
    """Options that a launch of another sweep does not have."""

    each: bool = setting(
        False, "one variant per ablation flag, instead of one variant with all changes"
    )
    all: bool = setting(False, "also run every ablation of the paper's Figure 9, one variant each")
    spec: Path | None = setting(None, "also run the ablations that this TOML file defines")
    list: bool = setting(False, "print the table of ablations and exit")
    quick: bool = setting(
        False, "a 0.1M agent on two easy tasks, minutes per run; not the paper's setting"
    )
    until_decided: bool = setting(
        False,
        "a study: start seeds look by look (--looks), and stop each ablation when its claim is "
        "decided (docs/studies.md)",
    )
    multitask: str | None = setting(
        None,
        "train multi-task agents on the task set mt30 or mt80; needs data=DIR, its dataset; "
        f"default of model_size: {MULTITASK_SIZE}, as in the paper",
    )


@dataclass(frozen=True)
class CommandLine:
    """Parsed arguments.

    Attributes:
        names: names of the ablations whose flags are given.
        options: options of the command.
        sweep: given fields of `SweepOptions`.
        given: given options of every run.
        settings: settings of TD-MPC2 that the default and all variants share.
        switches: fields of `TaskSwitches` that they share.
        texts: each argument as it was written, without the flags of ablations.
    """

    names: Sequence[str]
    options: AblationOptions
    sweep: Mapping[str, Any]
    given: Mapping[str, Any]
    settings: Mapping[str, Any]
    switches: Mapping[str, Any]
    texts: Mapping[str, str]


def flag_values() -> dict[str, list[str]]:
    """Return the flags that name ablations: the values of each; none for a flag without value."""
    values: dict[str, list[str]] = {}
    for one in ABLATIONS:
        flag, _, value = one.name.partition(" ")
        values.setdefault(flag, []).extend([value] * bool(value))
    return values


def parse(arguments: Sequence[str]) -> CommandLine:
    """Parse the arguments of the command.

    Raises:
        UserError: an unknown flag or key, a value of the wrong type or out of range, or options
            that exclude each other.
    """
    (shared, run, launch, _), kinds = _schemas(arguments), schema(arguments)
    names, others = split_flags(arguments, kinds)
    values = cli.parse_arguments(others, kinds)
    options = cli.build(AblationOptions, values)
    _check(options, values)
    settings, switches = part({k: v for k, v in values.items() if k in shared})
    return CommandLine(
        names,
        options,
        {k: v for k, v in values.items() if k in launch},
        {k: v for k, v in values.items() if k in run},
        settings,
        switches,
        cli.split_arguments(others, cli.flags_of(kinds)),
    )


def schema(arguments: Sequence[str]) -> Schema:
    """Return the kind of each option and setting, with or without `--multitask`."""
    return {name: kind for kinds in _schemas(arguments) for name, kind in kinds.items()}


def _schemas(arguments: Sequence[str]) -> tuple[Schema, Schema, Schema, Schema]:
    """Return the shared settings, and the options of runs, of the launch and of the command."""
    launch = {k: v for k, v in cli.schema_of(SweepOptions).items() if k not in FIXED}
    multitask = (cli.peek(arguments, "multitask") or "none").lower() != "none"
    run, shared = schemas(SweepOptions(methods="tdmpc2", data="given" if multitask else None))
    return shared, run, launch, cli.schema_of(AblationOptions)


def split_flags(arguments: Sequence[str], kinds: Schema) -> tuple[list[str], list[str]]:
    """Separate the flags that name ablations from options and settings.

    `--num-q 2` always names the ablation, and `num_q=2` always is the setting of all agents.

    Args:
        arguments: arguments of the command line.
        kinds: options and settings of the command.

    Returns:
        The names of the ablations, and the other arguments.

    Raises:
        UserError: a flag is unknown, or lacks its value.
    """
    flags, names, others, following = flag_values(), [], [], list(arguments)
    while following:
        argument = following.pop(0)
        name, equals, value = argument.partition("=")
        flag = name.lstrip("-").replace("_", "-")
        if not name.startswith("--") or (flag not in flags and flag.replace("-", "_") in kinds):
            others.append(argument)
            continue
        if flag not in flags:
            known = [f"--{key.replace('_', '-')}" for key in (*flags, *kinds)]
            raise UserError(f"unknown flag {name}{did_you_mean(name, known)}")
        if not flags[flag]:
            if equals:
                raise UserError(
                    f"--{flag} takes no value; {flag.replace('-', '_')}={value} is a "
                    "setting of the default and of all variants"
                )
            names.append(flag)
            continue
        if not equals:
            value = following.pop(0) if following and following[0][:2] != "--" else ""
        if not value:
            raise UserError(f"--{flag}: a value is needed ({', '.join(flags[flag])})")
        names.append(f"{flag} {value}")
    order = list(flags)
    # The name of a variant does not depend on the order in which flags with values are given.
    return sorted(names, key=lambda one: order.index(one.split()[0]) * (" " in one)), others


def _check(options: AblationOptions, values: Mapping[str, Any]) -> None:
    """Check that the options are valid with, or without, `--multitask`."""
    if options.multitask is None:
        for name, instead in (("num_updates", "--env-steps"), ("data", "--tasks")):
            if name in values:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag}: only valid with --multitask; use {instead} instead")
        return
    for name in ("quick", "env_steps", "tasks", "until_decided"):
        if values.get(name):
            raise UserError(f"--{name.replace('_', '-')} and --multitask exclude each other")
    if values.get("data") is None:
        raise UserError("--multitask: data=DIR is missing (the folder of a dataset)")


def usage() -> str:
    """Return the text of `--help`."""
    rows = []
    for flag, values in flag_values().items():
        first = next(one for one in ABLATIONS if one.name.partition(" ")[0] == flag)
        changes = f"{first.changes.partition('=')[0]} to this value" if values else first.changes
        shown = f"--{flag} {'|'.join(values)}".rstrip()
        rows.append(f"  {shown:<32} {first.factor}: sets {changes}")
    about = (
        "Trains TD-MPC2 with design choices disabled or replaced (ablations) and the default agent "
        "for comparison, then reports whether the claims on the ablations are supported. By "
        "default: the paper's tasks (dog-run, humanoid-walk, pick-ycb; for --stop-at-success "
        "and --unseeded-resets: all tasks of their domain), three seeds, full budgets. The plan is "
        "printed first; the same command again resumes unfinished runs. Several ablation flags "
        "make one variant with all of their changes; with --each, one variant per flag."
    )
    grammar = (
        "Options and settings are written as key=value, --key=value or --key value; --key alone "
        "means true. A flag that names an ablation always means that ablation: --num-q 2 trains "
        "a variant with two Q-functions beside the default. num_q=2 sets the default and all "
        "variants alike; with both, the flag would change nothing and is refused."
    )
    return "\n".join(
        [
            "usage: python ablations/run.py --ABLATION … [key=value …]",
            "",
            *textwrap.wrap(about, 96),
            "",
            *textwrap.wrap(grammar, 96),
            "",
            "Ablations:",
            *rows,
            "",
            "Options:",
            cli.describe_fields(AblationOptions),
            cli.describe_fields(LaunchOptions, without=FIXED),
            "",
            "The options of runs and the settings of TD-MPC2 of `python tdmpc2/train.py --help`",
            "are also valid; the default and all variants share them (runs=DIR, batch_size=128).",
            "",
            "The exit codes are those of sweeps/launch.py. Results so far: `python",
            "ablations/report.py`.",
        ]
    )
