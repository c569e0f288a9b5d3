"""Runs ablations beside the default: `python ablations/run.py --no-simnorm`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tabulate import tabulate

from ablations.specs import ABLATIONS, FIG9, Ablation, combined, read_specs
from sweeps import launch
from sweeps.execution import slurm
from sweeps.planning.grid import SMOKE
from tdmpc2.common.run.spec import variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite, get_task
from tdmpc2.runners.registry import make_config

QUICK_NOTE = (
    "--quick: a 0.1M model on two easy tasks, a few minutes a run. A first answer, not the paper's "
    "setting: what helps or harms there need not do so here."
)


@dataclass(frozen=True)
class Base:
    """What the ablations are compared with.

    Attributes:
        variant: name of its runs.
        settings: `key=value` arguments that it and every variant share.
        launcher: arguments of the launcher that were given.
        config: of its agents.
    """

    variant: str
    settings: tuple[str, ...]
    launcher: dict[str, str]
    config: TDMPC2Config

    def variant_of(self, one: Ablation) -> str:
        """Name of the runs of an ablation: its own, after that of a base that has one."""
        return one.variant if self.variant == "default" else f"{self.variant}+{one.variant}"


class _Parser(argparse.ArgumentParser):
    """Answers bad input as the other commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def valued_flags() -> dict[str, list[str]]:
    """Flags that take a value, with the values there are."""
    found: dict[str, list[str]] = {}
    for one in ABLATIONS:
        flag, _, value = one.name.partition(" ")
        if value:
            found.setdefault(flag, []).append(value)
    return found


SELECTION: dict[str, dict[str, Any]] = {
    "spec": {"type": Path, "metavar": "FILE", "help": "ablations of your own, in TOML"},
    "all": {"action": "store_true", "help": "all of the paper's Figure 9, each"},
    "each": {"action": "store_true", "help": "one variant for each flag"},
    "list": {"action": "store_true", "help": "the table of ablations, and stop"},
}
HOW: dict[str, dict[str, Any]] = {
    "tasks": {"metavar": "NAMES", "help": "default: dog-run, humanoid-walk, pick-ycb"},
    "seeds": {"metavar": "N", "default": "3", "help": "a count or a list (default: 3)"},
    "env-steps": {"metavar": "N", "help": "budget of each run (default: the task's)"},
    "multitask": {"metavar": "SET", "help": "agents of many tasks: mt30, mt80; needs data=DIR"},
    "num-updates": {"metavar": "N", "help": "budget with --multitask (default: 10,000,000)"},
    "model-size": {"metavar": "SIZE", "help": "1, 5 (default), 19 …: millions"},
    "cluster": {"metavar": "WHERE", "help": "auto (default), slurm, local, inline"},
    "quick": {"action": "store_true", "help": "a tiny agent on two easy tasks"},
    "dry-run": {"action": "store_true", "help": "show the plan and stop"},
    "yes": {"action": "store_true", "help": "start what takes days, or without what cannot start"},
}
"""Flags beside those of the table, by name."""


def make_parser() -> argparse.ArgumentParser:
    """Flags from the table, and what else may be said."""
    parser = _Parser(
        prog="python ablations/run.py",
        usage="%(prog)s --ABLATION … [option …] [key=value …]",
        description="Runs design choices taken back, beside the default agent: on the paper's "
        "three tasks with three seeds at its budget unless told otherwise, through the launcher of "
        "sweeps (its plan first; the same command again resumes). Several flags make one variant "
        "with all of those changes; with --each, one variant for each.",
        epilog="key=value arguments go to sweeps/launch.py: partition=, runs=, any setting …",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=100),
    )
    flags = parser.add_argument_group("ablations")
    for one in ABLATIONS:
        if " " not in one.name:
            about = f"[{one.factor}] {one.changes}"
            how: dict[str, Any] = {"action": "append_const", "const": one.name, "dest": "chosen"}
            flags.add_argument(f"--{one.name}", **how, help=about)
    for flag, values in valued_flags().items():
        (first, *_) = (one for one in ABLATIONS if one.name.startswith(f"{flag} "))
        about = f"[{first.factor}] {first.changes.partition('=')[0]}="
        shown = "|".join(values)
        flags.add_argument(f"--{flag}", action="append", default=[], metavar=shown, help=about)
    for group, table in ((flags, SELECTION), (parser.add_argument_group("how"), HOW)):
        for name, options in table.items():
            group.add_argument(f"--{name}", **options)
    parser.add_argument("arguments", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code: the launcher's, see `sweeps/launch.py`."""
    flags = {f"--{one.name.partition(' ')[0]}" for one in ABLATIONS}
    flags |= {f"--{name}" for name in (*SELECTION, *HOW)}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("-") and flag not in flags:
            raise UserError(f"unknown flag {flag}{did_you_mean(flag, flags)}")
    said = make_parser().parse_intermixed_args(list(arguments))
    if said.list:
        print(table_of_ablations())
        return 0
    check_arguments(said)
    base = make_base(said)
    chosen = choose(said, base)
    if said.quick:
        print(QUICK_NOTE)
    code = launch.main(launcher_arguments(said, chosen, base), advice=_advice(said))
    if said.dry_run or code not in (0, 1, launch.LEFT_BLOCKED):
        return code
    if slurm.choose(said.cluster or "auto") == "slurm":
        print("sweeps/status.py shows where they stand, ablations/report.py what they say so far.")
        return code
    if said.multitask is not None:
        runs = base.launcher.get("runs")
        where = f" runs={runs}" if runs else ""
        print(f"\npython analysis/make_figures.py{where} draws their scores, variant by variant.")
        return code
    try:
        return _report(said, base) or code
    except UserError as error:
        if code != launch.LEFT_BLOCKED:
            raise
        print(f"No report yet: {error}")
        return code


def check_arguments(said: argparse.Namespace) -> None:
    """Refuses what does not go together with agents of many tasks, or without them."""
    if said.multitask is None:
        if said.num_updates is not None:
            raise UserError("--num-updates: is the budget with --multitask; say --env-steps")
        return
    for name in ("quick", "env_steps", "tasks"):
        if getattr(said, name):
            raise UserError(f"--{name.replace('_', '-')} and --multitask exclude each other")
    if not any(argument.startswith("data=") for argument in said.arguments):
        raise UserError("--multitask: data=DIR is missing, the folder of a dataset")


def choose(said: argparse.Namespace, base: Base) -> list[Ablation]:
    """The variants that the flags ask for.

    Raises:
        UserError: none, an unknown value, a flag twice, flags that contradict each other, or one
            that changes nothing.
    """
    by_name = {one.name: one for one in ABLATIONS}
    names = list(said.chosen or [])
    for flag, values in valued_flags().items():
        given = getattr(said, flag.replace("-", "_"))
        if len(given) > 1 and not said.each:
            raise UserError(
                f"--{flag} is given as {' and as '.join(given)}; add --each for a variant of each"
            )
        for value in given:
            if f"{flag} {value}" not in by_name:
                raise UserError(_no_such_value(flag, value, values, base))
            names.append(f"{flag} {value}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--{name} is given twice")
    flagged = [by_name[name] for name in names]
    chosen = flagged if said.each or not flagged else [combined(flagged)]
    others: list[Ablation] = []
    if said.all:
        others += [one for one in ABLATIONS if one.figure == FIG9 and one not in chosen]
    if said.spec is not None:
        others += read_specs(said.spec)
    for one in (*flagged, *others):
        check_changes(one, base, multitask=said.multitask is not None)
    if not chosen and not others:
        raise UserError("name an ablation, such as --no-simnorm (--list shows them)")
    return [*chosen, *others]


def _no_such_value(flag: str, value: str, values: Sequence[str], base: Base) -> str:
    """Why a flag does not take a value."""
    setting = flag.replace("-", "_")
    if str(getattr(base.config, setting)) == value:
        return f"--{flag} {value}: changes nothing, {base.variant} has {setting}={value} already"
    return (
        f"--{flag} {value}: no such ablation (there are {', '.join(values)}); others can be "
        "written down for --spec"
    )


def make_base(said: argparse.Namespace) -> Base:
    """What the ablations are compared with."""
    schema = cli.schema_of(TDMPC2Config)
    own: dict[str, str] = {}
    launcher: dict[str, str] = {}
    for key, value in cli.split_arguments(said.arguments).items():
        (own if key in schema else launcher)[key] = value
    if said.model_size is not None and (said.quick or said.model_size != "5"):
        own.setdefault("model_size", said.model_size)
    names = ["quick"] * said.quick + [variant_name(tuple(own.items()))] * bool(own)
    settings = {**(SMOKE.overrides["tdmpc2"] if said.quick else {}), **own}
    arguments = tuple(f"{key}={value}" for key, value in settings.items())
    config = make_config("tdmpc2", cli.parse_arguments(arguments, schema), said.multitask)
    return Base("+".join(names) or "default", arguments, launcher, config)


def check_changes(one: Ablation, base: Base, *, multitask: bool = False) -> None:
    """Refuses an ablation that would repeat the base.

    Raises:
        UserError: nothing it names differs from the base, or shows in agents of one task, or of
            many.
    """
    if one.multitask and not multitask:
        raise UserError(
            f"{one.name}: changes nothing in agents of a single task; say --multitask mt80 data=DIR"
        )
    online = [key for key in one.settings if key in DOMAINS or key == "prioritized_replay"]
    if multitask and online:
        raise UserError(f"{one.name}: {online[0]} has no meaning where agents learn from a dataset")
    now = {**vars(base.config), **vars(TaskSwitches())}
    if all(now[key] == value for key, value in one.settings.items()):
        changes = ", ".join(f"{key}={value}" for key, value in one.settings.items())
        raise UserError(f"{one.name}: changes nothing, {base.variant} has {changes} already")


def launcher_arguments(
    said: argparse.Namespace, chosen: Sequence[Ablation], base: Base
) -> list[str]:
    """What `sweeps/launch.py` is asked for."""
    variants = [f"{base.variant}:"] + [
        f"{base.variant_of(one)}:{'+'.join(one.changes.split())}" for one in chosen
    ]
    options: dict[str, Any] = {
        "methods": "tdmpc2",
        "seeds": said.seeds,
        "variants": ",".join(variants),
    }
    if said.multitask is not None:
        options["suite"] = said.multitask
        if said.num_updates is not None:
            options["num_updates"] = said.num_updates
    else:
        options["tasks"] = ",".join(tasks_of(said, chosen))
    if said.quick:
        options |= {"env_steps": SMOKE.env_steps, **SMOKE.options}
    if said.env_steps is not None:
        options["env_steps"] = said.env_steps
    if said.cluster is not None:
        options["cluster"] = said.cluster
    options |= {key: "true" for key in ("dry_run", "yes") if getattr(said, key)}
    options |= base.launcher
    return [*(f"{key}={value}" for key, value in options.items()), *base.settings]


def tasks_of(said: argparse.Namespace, chosen: Sequence[Ablation]) -> list[str]:
    """The tasks of all variants.

    Raises:
        UserError: some of the ablations are about other tasks than the others.
    """
    if said.tasks is not None:
        return [get_task(name.strip()).name for name in said.tasks.split(",")]
    if said.quick:
        own = [one for one in chosen if one.default_tasks != _names("ablation")]
        if own:
            raise UserError(f"--{own[0].name}: has tasks of its own; name --tasks, or drop --quick")
        return list(_names("smoke"))
    for one in chosen[1:]:
        if one.default_tasks != chosen[0].default_tasks:
            raise UserError(
                f"--{chosen[0].name} and --{one.name} are about different tasks: name --tasks, or "
                "launch them one by one"
            )
    return list(chosen[0].default_tasks)


def _names(suite: str) -> tuple[str, ...]:
    """Names of a suite's tasks."""
    return tuple(task.name for task in get_suite(suite))


def _advice(said: argparse.Namespace) -> str:
    """What to do about a plan that takes days."""
    quick = "" if said.quick else ", try --quick for a first answer in minutes"
    return (
        f"Add --yes to start it on this machine anyway{quick}, launch it where sbatch is, or "
        "choose fewer --tasks, --seeds or --env-steps."
    )


def _report(said: argparse.Namespace, base: Base) -> int:
    """What the runs say so far."""
    from ablations import report  # which loads all that draws

    arguments = {"base": base.variant}
    if "runs" in base.launcher:
        arguments["runs"] = base.launcher["runs"]
    if said.spec is not None:
        arguments["spec"] = said.spec
    print()
    return report.main([f"{key}={value}" for key, value in arguments.items()])


def table_of_ablations() -> str:
    """The ablations with what is claimed of them."""
    rows = [
        (
            one.factor,
            f"--{one.name}",
            one.changes.replace(" ", "\n"),
            one.expected or "",
            textwrap.fill(one.claim, 40),
            one.figure,
        )
        for one in ABLATIONS
    ]
    head = ["factor", "flag", "changes", "expected", "claim", "paper"]
    return tabulate(rows, head, "simple")


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: make_parser().format_help()))
