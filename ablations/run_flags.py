"""Command-line flags of `ablations/run.py`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from ablations.specs import ABLATIONS
from tdmpc2.common.system.errors import UserError

MULTITASK_SIZE = "19"
"""Model size of the paper's multi-task ablations, in millions of parameters."""


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
