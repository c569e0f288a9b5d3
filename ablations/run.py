"""Run ablations and the default agent: `python ablations/run.py --no-simnorm`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ablations.specs import (
    ABLATIONS,
    FIG9,
    Ablation,
    combined,
    read_specs,
    table_of_ablations,
)
from sweeps import launch
from sweeps.execution import slurm
from sweeps.planning.grid import SMOKE
from tdmpc2.common.run.spec import variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite, list_tasks
from tdmpc2.runners.registry import make_config

MULTITASK_SIZE = "19"
"""Model size of the paper's multi-task ablations, in millions of parameters."""
QUICK_NOTE = (
    "--quick: a 0.1M model on two easy tasks, a few minutes per run. This is a first impression, "
    "not the paper's setting: a design choice can have another effect there."
)


@dataclass(frozen=True)
class Base:
    """The variant that the ablations are compared with: the default, or shared settings.

    Attributes:
        variant: variant name of its runs; `default` without shared settings.
        settings: `key=value` arguments that it shares with every ablation.
        launcher: further arguments of `sweeps/launch.py`, by key.
        config: config of its agents.
    """

    variant: str
    settings: tuple[str, ...]
    launcher: dict[str, str]
    config: TDMPC2Config

    def variant_of(self, one: Ablation) -> str:
        """Return the variant name of an ablation's runs, prefixed by that of a non-default base."""
        return one.variant if self.variant == "default" else f"{self.variant}+{one.variant}"


class _Parser(argparse.ArgumentParser):
    """Parser that reports bad input like the other commands: as a `UserError` of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def valued_flags() -> dict[str, list[str]]:
    """Return the flags that take a value, such as `num-q`, with their valid values."""
    values: dict[str, list[str]] = {}
    for one in ABLATIONS:
        flag, _, value = one.name.partition(" ")
        if value:
            values.setdefault(flag, []).append(value)
    return values


def _flag(text: str) -> dict[str, Any]:
    return {"action": "store_true", "help": text}


def _value(metavar: str, text: str, **more: Any) -> dict[str, Any]:
    return {"metavar": metavar, "help": text, **more}


SELECTION: dict[str, dict[str, Any]] = {
    "spec": _value("FILE", "also run the ablations that this TOML file defines", type=Path),
    "all": _flag("also run every ablation of the paper's Figure 9, one variant each"),
    "each": _flag("one variant per ablation flag, instead of one variant with all changes"),
    "list": _flag("print the table of ablations and exit"),
}
HOW: dict[str, dict[str, Any]] = {
    "tasks": _value(
        "NAMES",
        "comma-separated task names (default: dog-run,humanoid-walk,pick-ycb; for "
        "--stop-at-success and --unseeded-resets: all tasks of their domain)",
    ),
    "seeds": _value("N", "number of seeds, or list such as 1,2,5 (default: 3)", default="3"),
    "env-steps": _value("N", "budget of each run in env steps (default: the task's)"),
    "multitask": _value(
        "SET", "train multi-task agents on the task set mt30 or mt80; needs data=DIR, its dataset"
    ),
    "num-updates": _value(
        "N", "budget of each run in gradient updates, with --multitask (default: 10,000,000)"
    ),
    "model-size": _value(
        "SIZE",
        "millions of parameters: 1, 5, 19, 48 or 317 (default: 5; with --multitask: "
        f"{MULTITASK_SIZE}, as in the paper)",
    ),
    "cluster": _value("WHERE", "auto (default), slurm, local, inline; see sweeps/launch.py --help"),
    "quick": _flag("a 0.1M agent on two easy tasks, minutes per run; not the paper's setting"),
    "dry-run": _flag("print the plan and stop"),
    "yes": _flag(
        "on this machine: start although the runs need more than a day on one core or GPU, or "
        "although some runs cannot start"
    ),
}
"""Options of the command other than the ablation flags, by name."""


def make_parser() -> argparse.ArgumentParser:
    """Build the parser, with a flag for every ablation of the table."""
    parser = _Parser(
        prog="python ablations/run.py",
        usage="%(prog)s --ABLATION … [option …] [key=value …]",
        description="Trains TD-MPC2 with design choices disabled or replaced (ablations) and the "
        "default agent for comparison, then reports whether the claims on the ablations are "
        "supported. By default: the paper's three tasks, three seeds and full budgets. The plan is "
        "printed first; the same command again resumes unfinished runs. Several ablation flags "
        "make one variant with all of their changes; with --each, one variant per flag.",
        epilog="key=value arguments are passed to sweeps/launch.py: its options (runs=DIR, "
        "partition=gpu; see `python sweeps/launch.py --help`), and settings of TD-MPC2 that the "
        "default agent and all variants share (batch_size=128). The exit codes are those of "
        "sweeps/launch.py. Results so far: `python ablations/report.py`.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=100),
    )
    flags = parser.add_argument_group("ablations")
    for one in ABLATIONS:
        if " " not in one.name:
            about = f"{one.factor}: sets {one.changes}"
            how: dict[str, Any] = {"action": "append_const", "const": one.name, "dest": "chosen"}
            flags.add_argument(f"--{one.name}", **how, help=about)
    for flag, values in valued_flags().items():
        first = next(one for one in ABLATIONS if one.name.startswith(f"{flag} "))
        about = f"{first.factor}: sets {first.changes.partition('=')[0]} to this value"
        how = {"action": "append", "default": [], "metavar": "|".join(values)}
        flags.add_argument(f"--{flag}", **how, help=about)
    selection = parser.add_argument_group("selection of ablations")
    training = parser.add_argument_group("training runs")
    for group, table in ((selection, SELECTION), (training, HOW)):
        for name, options in table.items():
            group.add_argument(f"--{name}", **options)
    parser.add_argument("arguments", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code of the launch (see `sweeps/launch.py`).

    Raises:
        UserError: an unknown flag or an invalid value.
    """
    flags = {f"--{one.name.partition(' ')[0]}" for one in ABLATIONS}
    flags |= {f"--{name}" for name in (*SELECTION, *HOW)}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("-") and flag not in flags:
            raise UserError(f"unknown flag {flag}{did_you_mean(flag, flags)}")
    args = make_parser().parse_intermixed_args(list(arguments))
    if args.list:
        print(table_of_ablations())
        return 0
    check_arguments(args)
    base = make_base(args)
    chosen = choose(args, base)
    if args.quick:
        print(QUICK_NOTE)
    code = launch.main(launcher_arguments(args, chosen, base), advice=_advice(args))
    if args.dry_run or code not in (0, 1, launch.LEFT_BLOCKED):
        return code
    if slurm.choose(args.cluster or "auto") == "slurm":
        print("Progress: `python sweeps/status.py`. Results: `python ablations/report.py`.")
        return code
    if args.multitask is not None:
        runs = base.launcher.get("runs")
        where = f" runs={runs}" if runs else ""
        print(f"\nPlot the scores of the variants with `python analysis/make_figures.py{where}`.")
        return code
    try:
        return _report(args, base) or code
    except UserError as error:
        if code != launch.LEFT_BLOCKED:
            raise
        print(f"No report yet: {error}")
        return code


def check_arguments(args: argparse.Namespace) -> None:
    """Check that the options are valid with, or without, `--multitask`.

    Raises:
        UserError: options that exclude each other, or a missing dataset.
    """
    if args.multitask is None:
        if args.num_updates is not None:
            raise UserError("--num-updates: only valid with --multitask; use --env-steps instead")
        return
    for name in ("quick", "env_steps", "tasks"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} and --multitask exclude each other")
    if not any(argument.startswith("data=") for argument in args.arguments):
        raise UserError("--multitask: data=DIR is missing (the folder of a dataset)")


def choose(args: argparse.Namespace, base: Base) -> list[Ablation]:
    """Return the ablations that the flags select, combined into one unless `--each` is given.

    Raises:
        UserError: no ablation, an unknown value, a repeated flag, flags that contradict each
            other, or a flag that changes nothing.
    """
    by_name = {one.name: one for one in ABLATIONS}
    names = list(args.chosen or [])
    for flag, values in valued_flags().items():
        given = getattr(args, flag.replace("-", "_"))
        if len(given) > 1 and not args.each:
            raise UserError(
                f"--{flag} is given as {' and as '.join(given)}; add --each for one variant per "
                "value"
            )
        for value in given:
            if f"{flag} {value}" not in by_name:
                raise UserError(_no_such_value(flag, value, values, base))
            names.append(f"{flag} {value}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--{name} is given twice")
    flagged = [by_name[name] for name in names]
    chosen = flagged if args.each or not flagged else [combined(flagged)]
    others: list[Ablation] = []
    if args.all:
        others += [one for one in ABLATIONS if one.figure == FIG9 and one not in chosen]
    if args.spec is not None:
        others += read_specs(args.spec)
    for one in (*flagged, *others):
        check_changes(one, base, multitask=args.multitask is not None)
    if not chosen and not others:
        raise UserError("no ablation given; add one, such as --no-simnorm (--list shows all)")
    return [*chosen, *others]


def _no_such_value(flag: str, value: str, values: Sequence[str], base: Base) -> str:
    """Explain why a flag does not accept a value."""
    setting = flag.replace("-", "_")
    if str(getattr(base.config, setting)) == value:
        return f"--{flag} {value}: changes nothing; '{base.variant}' already has {setting}={value}"
    return (
        f"--{flag} {value}: no such ablation (valid: {', '.join(values)}); define it in a file for "
        "--spec"
    )


def make_base(args: argparse.Namespace) -> Base:
    """Build the base of the comparison from the options and the `key=value` arguments."""
    schema = cli.schema_of(TDMPC2Config)
    own: dict[str, str] = {}
    launcher: dict[str, str] = {}
    for key, value in cli.split_arguments(args.arguments).items():
        (own if key in schema else launcher)[key] = value
    default_size = "5" if args.multitask is None else MULTITASK_SIZE
    if args.model_size is not None and (args.quick or args.model_size != default_size):
        own.setdefault("model_size", args.model_size)
    names = ["quick"] * args.quick + [variant_name(tuple(own.items()))] * bool(own)
    settings = {**(SMOKE.overrides["tdmpc2"] if args.quick else {}), **own}
    if args.multitask is not None:
        settings.setdefault("model_size", default_size)
    arguments = tuple(f"{key}={value}" for key, value in settings.items())
    config = make_config("tdmpc2", cli.parse_arguments(arguments, schema), args.multitask)
    return Base("+".join(names) or "default", arguments, launcher, config)


def check_changes(one: Ablation, base: Base, *, multitask: bool = False) -> None:
    """Check that an ablation changes something in the agents that will be trained.

    Args:
        one: the ablation.
        base: variant that it is compared with.
        multitask: whether the agents are multi-task agents.

    Raises:
        UserError: the base already has its settings, or they have no effect in single-task agents
            or in training from a dataset.
    """
    if one.multitask and not multitask:
        raise UserError(
            f"{one.name}: changes nothing in single-task agents; add --multitask mt80 data=DIR"
        )
    online = [key for key in one.settings if key in DOMAINS or key == "prioritized_replay"]
    if multitask and online:
        raise UserError(f"{one.name}: {online[0]} does not apply to training from a dataset")
    current = {**vars(base.config), **vars(TaskSwitches())}
    if all(current[key] == value for key, value in one.settings.items()):
        changes = ", ".join(f"{key}={value}" for key, value in one.settings.items())
        raise UserError(f"{one.name}: changes nothing; '{base.variant}' already has {changes}")


def launcher_arguments(
    args: argparse.Namespace, chosen: Sequence[Ablation], base: Base
) -> list[str]:
    """Build the arguments of `sweeps/launch.py`.

    Args:
        args: parsed options of the command.
        chosen: ablations to run.
        base: variant that they are compared with; it is run too.
    """
    variants = [f"{base.variant}:"] + [
        f"{base.variant_of(one)}:{'+'.join(one.changes.split())}" for one in chosen
    ]
    options: dict[str, Any] = {
        "methods": "tdmpc2",
        "seeds": args.seeds,
        "variants": ",".join(variants),
    }
    if args.multitask is not None:
        options["suite"] = args.multitask
        if args.num_updates is not None:
            options["num_updates"] = args.num_updates
    else:
        options["tasks"] = ",".join(tasks_of(args, chosen))
    if args.quick:
        options |= {"env_steps": SMOKE.env_steps, **SMOKE.options}
    if args.env_steps is not None:
        options["env_steps"] = args.env_steps
    if args.cluster is not None:
        options["cluster"] = args.cluster
    options |= {key: "true" for key in ("dry_run", "yes") if getattr(args, key)}
    options |= base.launcher
    return [*(f"{key}={value}" for key, value in options.items()), *base.settings]


def tasks_of(args: argparse.Namespace, chosen: Sequence[Ablation]) -> list[str]:
    """Return the tasks on which all variants are trained.

    Raises:
        UserError: an unknown task, or ablations with different default tasks.
    """
    if args.tasks is not None:
        return [task.name for task in list_tasks(args.tasks, "--tasks")]
    if args.quick:
        own = [one for one in chosen if one.default_tasks != _names("ablation")]
        if own:
            raise UserError(f"--{own[0].name}: has tasks of its own; set --tasks or omit --quick")
        return list(_names("smoke"))
    for one in chosen[1:]:
        if one.default_tasks != chosen[0].default_tasks:
            raise UserError(
                f"--{chosen[0].name} and --{one.name} have different default tasks; set --tasks, "
                "or run them separately"
            )
    return list(chosen[0].default_tasks)


def _names(suite: str) -> tuple[str, ...]:
    """Return the task names of a suite."""
    return tuple(task.name for task in get_suite(suite))


def _advice(args: argparse.Namespace) -> str:
    """Return the advice that follows the message on a long plan."""
    quick = "" if args.quick else ", try --quick for a first impression in minutes"
    return (
        f"Add --yes to start them on this machine anyway{quick}, run them on a cluster with SLURM, "
        "or reduce --tasks, --seeds or --env-steps."
    )


def _report(args: argparse.Namespace, base: Base) -> int:
    """Print and write the report on the runs of this command."""
    from ablations import report  # imported here, because it loads the plotting libraries

    arguments = {"base": base.variant}
    if "runs" in base.launcher:
        arguments["runs"] = base.launcher["runs"]
    if args.spec is not None:
        arguments["spec"] = args.spec
    print()
    return report.main([f"{key}={value}" for key, value in arguments.items()])


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: make_parser().format_help()))
