"""Trains agents: `python tdmpc2/train.py task=TASK`, or `task=TASKS data=DIR` for several tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tdmpc2.common.run.spec import RunOptions, RunSpec, chosen_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.envs.task_variants import TaskSwitches
from tdmpc2.envs.tasks import SUITES
from tdmpc2.runners import offline
from tdmpc2.runners.online import run_seeds
from tdmpc2.runners.registry import METHODS, agent_class, make_spec

SPEC_OPTIONS: dict[str, Any] = {
    "method": str,
    "task": str,
    "seed": int,
    "seeds": str | None,
    "env_steps": int | None,
    "variant": str | None,
    "obs": str,
    "assets": str,
}


def parse(arguments: Sequence[str]) -> tuple[list[RunSpec], RunOptions]:
    """Turns `key=value` arguments into what to run and how: a run for each seed.

    Raises:
        UserError: unknown key, task or method, or a value out of range.
    """
    pairs = cli.split_arguments(arguments)
    config_class = agent_class(pairs.get("method", "tdmpc2")).config_class
    config_schema = cli.schema_of(config_class)
    options_schema, switches = cli.schema_of(RunOptions), cli.schema_of(TaskSwitches)
    values = cli.parse_arguments(
        arguments, {**SPEC_OPTIONS, **switches, **options_schema, **config_schema}
    )
    if "task" not in values:
        raise UserError("task= is missing, e.g. task=walker-walk")
    if values["task"] in SUITES or "," in values["task"]:
        raise UserError(
            f"task={values['task']}: several tasks; one agent learns them from a dataset "
            "(data=DIR), or one in each: python sweeps/launch.py"
        )
    options = RunOptions(**{k: values[k] for k in options_schema if k in values})
    overrides = {k: values[k] for k in config_schema if k in values}
    specs = [
        make_spec(
            values.get("method", "tdmpc2"),
            values["task"],
            seed,
            env_steps=values.get("env_steps"),
            variant=values.get("variant"),
            overrides=overrides,
            obs=values.get("obs", "state"),
            assets=values.get("assets", "official"),
            task_switches={k: values[k] for k in switches if k in values},
        )
        for seed in chosen_seeds(values)
    ]
    return specs, options


def usage(arguments: Sequence[str] = ()) -> str:
    """Text of `--help`, with the settings of the method that the arguments name."""
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("method=")]
    method = named[0] if named else "tdmpc2"
    if any(argument.startswith("data=") for argument in arguments):
        return offline.usage(method)
    config_class = agent_class(method).config_class
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASK [key=value …]",
            "",
            "Trains one agent on one task. The same command again resumes an unfinished run and",
            "skips a finished one. Numbers may be written 100_000 or 1e5. One agent learns several",
            "tasks from a dataset: task=mt80 data=DIR (data= --help).",
            "",
            "What to run:",
            "  task=                                      e.g. walker-walk",
            "  seed=1                                     of everything random",
            "  seeds=                                     instead of seed: several (3, or 1,2,5)",
            "                                             as one batch, each with its own records",
            f"  method=tdmpc2                              {' | '.join(METHODS)}",
            "  env_steps=                                 budget; default: the task's",
            "  variant=                                   name of these settings; default: derived",
            "  obs=state                                  state | rgb (DMControl only)",
            "  assets=official                            of pick-ycb and turn-faucet: official |",
            "                                             rebuilt | standin | unknown, or several,",
            "                                             by preference (official,unknown)",
            cli.describe_fields(TaskSwitches),
            "",
            "How (no influence on results):",
            cli.describe_fields(RunOptions),
            "",
            f"Settings of {method} (each is part of the run's identity; for another method's:",
            "method=NAME --help):",
            cli.describe_fields(config_class),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    try:
        if offline.is_meant(arguments):
            return offline.main(arguments)
        specs, options = parse(arguments)
        records = run_seeds(specs, options)
    except StoppedError as error:
        print(f"{error}; run the same command again to continue", file=sys.stderr)
        return 130
    for record in records:
        print(record.sentence("env step"))
    return 1 if any(record.state == "DIVERGED" for record in records) else 0


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: usage(sys.argv[1:])))
