"""Run ablations and the default agent: `python ablations/run.py --no-simnorm`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablations.run_flags import HOW, MULTITASK_SIZE, SELECTION, make_parser, valued_flags
from ablations.specs import (
    ABLATIONS,
    FIG9,
    Ablation,
    combined,
    read_specs,
    table_of_ablations,
)
from sweeps import launch
from sweeps.execution.exit_codes import LEFT_BLOCKED
from sweeps.planning.grid import SMOKE
from tdmpc2.common.run.spec import variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite, list_tasks
from tdmpc2.runners.registry import make_config

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
    if args.dry_run or code not in (0, 1, LEFT_BLOCKED):
        return code
    from sweeps.execution import slurm

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
        if code != LEFT_BLOCKED:
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
    from ablations import report

    arguments = {"base": base.variant}
    if "runs" in base.launcher:
        arguments["runs"] = base.launcher["runs"]
    if args.spec is not None:
        arguments["spec"] = args.spec
    print()
    return report.main([f"{key}={value}" for key, value in arguments.items()])


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: make_parser().format_help()))
