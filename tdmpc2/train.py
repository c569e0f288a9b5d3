"""Train command: `python tdmpc2/train.py task=TASK`, or `task=TASKS data=DIR` for multi-task runs.

What happens on SIGINT, SIGTERM and SIGUSR2 is described in `tdmpc2.common.training.session`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdmpc2.common.run.spec import RunOptions, RunSpec, chosen_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.envs.task_variants import TaskSwitches
from tdmpc2.envs.tasks import SUITES
from tdmpc2.runners import offline_arguments
from tdmpc2.runners.registry import METHODS, config_class, make_spec

if TYPE_CHECKING:
    from tdmpc2.common.run.resume_checks import RunResult

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
    """Parse `key=value` arguments into one run specification per seed, and the run options.

    Raises:
        UserError: an unknown key, task or method, or a value out of range.
    """
    pairs = cli.split_arguments(arguments)
    config_schema = cli.schema_of(config_class(pairs.get("method", "tdmpc2")))
    options_schema, switches = cli.schema_of(RunOptions), cli.schema_of(TaskSwitches)
    values = cli.parse_arguments(
        arguments, {**SPEC_OPTIONS, **switches, **options_schema, **config_schema}
    )
    if "task" not in values:
        raise UserError("task= is missing; name a task, e.g. task=walker-walk")
    if values["task"] in SUITES or "," in values["task"]:
        raise UserError(
            f"task={values['task']}: names several tasks; train one multi-task agent from a "
            "dataset (data=DIR), or one agent per task with python sweeps/launch.py"
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
    """Return the text of `--help`, with the hyperparameters of the method in the arguments."""
    methods = [
        argument.partition("=")[2] for argument in arguments if argument.startswith("method=")
    ]
    method = methods[0] if methods else "tdmpc2"
    if any(argument.startswith("data=") for argument in arguments):
        return offline_arguments.usage(method)
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASK [key=value …]",
            "",
            "Trains one agent on one task. Running the same command again resumes an unfinished",
            "run and skips a finished one. Numbers may be written as 100_000 or 1e5. To train one",
            "multi-task agent from a dataset: task=mt80 data=DIR (options: data= --help).",
            "",
            "Ctrl-C and SIGTERM stop the run at once, without a checkpoint; the same command then",
            "resumes it from the last checkpoint. SIGUSR2 finishes the episode, saves a checkpoint",
            "and stops. In a SLURM job, SIGTERM does the same, but stops after 20 s at the latest.",
            "Exit code: 0 completed, 1 diverged, 2 invalid input or disk full, 130 stopped.",
            "",
            "Identity of the run:",
            "  task=                                      name of the task, e.g. walker-walk",
            "  seed=1                                     seed of all random numbers",
            "  seeds=                                     instead of seed=: a count (3) or a list",
            "                                             (1,2,5) of seeds, trained as one batch;",
            "                                             each has a run directory of its own",
            f"  method=tdmpc2                              {' | '.join(METHODS)}",
            "  env_steps=                                 budget; default: set by the task",
            "  variant=                                   name of these settings; default: derived",
            "                                             from the settings that are not defaults",
            "  obs=state                                  state | rgb (pixels, DMControl only)",
            "  assets=official                            3D models of pick-ycb and turn-faucet:",
            "                                             official | rebuilt | standin | unknown,",
            "                                             or several, by preference",
            cli.describe_fields(TaskSwitches),
            "",
            "Options that influence results by round-off only:",
            cli.describe_fields(RunOptions),
            "",
            f"Hyperparameters of {method} (part of the run's identity; method=NAME --help lists",
            "those of another method):",
            cli.describe_fields(config_class(method)),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 completed, 1 diverged, 130 stopped."""
    offline = offline_arguments.is_meant(arguments)
    try:
        results = (_train_offline if offline else _train_online)(arguments)
    except StoppedError as error:
        print(f"{error}; run the same command again to continue", file=sys.stderr)
        return 130
    for result in results:
        print(result.sentence("update" if offline else "env step"))
    return 1 if any(result.state == "DIVERGED" for result in results) else 0


# The runners import torch, so they are imported after the arguments have been checked.
def _train_online(arguments: Sequence[str]) -> list[RunResult]:
    specs, options = parse(arguments)
    from tdmpc2.runners.online import run_seeds

    return run_seeds(specs, options)


def _train_offline(arguments: Sequence[str]) -> list[RunResult]:
    """Train from a dataset; only the first of several processes has a result."""
    spec, options, dataset = offline_arguments.parse(arguments)
    from tdmpc2.runners.offline import run_offline

    result = run_offline(spec, options, dataset)
    return [] if result is None else [result]


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: usage(sys.argv[1:])))
