"""Train command: `python tdmpc2/train.py task=TASK`, or `task=TASKS data=DIR` for multi-task runs.

What happens on SIGINT, SIGTERM and SIGUSR2 is described in `tdmpc2.common.training.session`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tdmpc2.common.run import spec_file
from tdmpc2.common.run.spec import OfflineOptions, RunOptions, RunSpec, chosen_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import (
    REQUIRED,
    SEED,
    STEPS,
    Kind,
    Settings,
    require_no_option,
    setting,
)
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.gymnasium_tasks import with_arguments
from tdmpc2.envs.task_variants import TaskSwitches
from tdmpc2.envs.tasks import SUITES
from tdmpc2.runners import offline_arguments
from tdmpc2.runners.registry import METHODS, config_class
from tdmpc2.runners.specs import make_spec

if TYPE_CHECKING:
    from tdmpc2.common.run.resume_checks import RunResult


@dataclass(frozen=True)
class SpecOptions(Settings):
    """Options that select a run; with switches and hyperparameters, its identity."""

    task: str = setting(
        REQUIRED,
        "name of the task, e.g. task=walker-walk; or a Gymnasium environment: task=gym:Hopper-v5, "
        "task=my_module:MyEnv-v0",
    )
    gym_kwargs: str | None = setting(None, "arguments of a Gymnasium environment, as a JSON object")
    seed: int = setting(1, "seed of all random numbers", SEED)
    seeds: str | None = setting(
        None,
        "instead of seed=: a count (3) or a list (1,2,5) of seeds, trained as one batch; each has "
        "a run directory of its own",
    )
    method: str = setting("tdmpc2", " | ".join(METHODS))
    env_steps: int | None = setting(None, "budget; default: set by the task", STEPS)
    variant: str | None = setting(
        None, "name of these settings; default: derived from the settings that are not defaults"
    )
    obs: Literal["state", "rgb"] = setting("state", "observations; rgb: pixels, DMControl only")
    assets: str = setting(
        "official",
        "3D models of pick-ycb and turn-faucet: official | rebuilt | standin | unknown, or several "
        "by preference",
    )


@dataclass(frozen=True)
class FileOptions(Settings):
    """The option that replaces all others."""

    spec: Path = setting(
        REQUIRED,
        "instead of all other arguments: file of runs and options that a launch has written, in "
        "runs/sweeps/<sweep>/<launch>/",
    )


def schema(arguments: Sequence[str]) -> Mapping[str, Kind]:
    """Return the kind of each option and setting; `data=` and `method=` decide which are valid.

    Raises:
        UserError: a setting of a method of the user has the name of an option.
    """
    if offline_arguments.is_meant(arguments):
        return offline_arguments.schema(arguments)
    config = config_class(_method(arguments))
    options = cli.schema_of(FileOptions, SpecOptions, TaskSwitches, RunOptions)
    require_no_option(config, options)
    return {**options, **cli.schema_of(config)}


def parse(arguments: Sequence[str]) -> tuple[list[RunSpec], spec_file.Options]:
    """Parse `key=value` arguments into one run specification per seed, and the run options.

    Raises:
        UserError: an unknown key, task or method, a value out of range, or an invalid file.
    """
    if cli.peek(arguments, "spec") is not None:
        if len(cli.split_arguments(arguments)) > 1:
            raise UserError("spec=: the file holds all settings of its runs; omit other arguments")
        return spec_file.read(cli.parse_options(arguments, FileOptions).spec)
    if offline_arguments.is_meant(arguments):
        spec, offline_options = offline_arguments.parse(arguments)
        return [spec], offline_options
    values = cli.parse_arguments(arguments, schema(arguments))
    chosen, options = cli.build(SpecOptions, values), cli.build(RunOptions, values)
    if chosen.task in SUITES or "," in chosen.task:
        raise UserError(
            f"task={chosen.task}: names several tasks; train one multi-task agent from a "
            "dataset (data=DIR), or one agent per task with python sweeps/launch.py"
        )
    task = chosen.task
    if chosen.gym_kwargs is not None:
        task = with_arguments(task, chosen.gym_kwargs)
    config, switches = cli.schema_of(config_class(chosen.method)), cli.schema_of(TaskSwitches)
    specs = [
        make_spec(
            chosen.method,
            task,
            seed,
            env_steps=chosen.env_steps,
            variant=chosen.variant,
            overrides={k: values[k] for k in config if k in values},
            obs=chosen.obs,
            assets=chosen.assets,
            task_switches={k: values[k] for k in switches if k in values},
        )
        for seed in chosen_seeds(values)
    ]
    return specs, options


def _method(arguments: Sequence[str]) -> str:
    return cli.peek(arguments, "method") or "tdmpc2"


def usage(arguments: Sequence[str] = ()) -> str:
    """Return the text of `--help`, with the hyperparameters of the method in the arguments."""
    method = _method(arguments)
    if cli.peek(arguments, "data") is not None:
        return offline_arguments.usage(method)
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASK [key=value …]",
            "       python tdmpc2/train.py spec=FILE",
            "",
            "Trains one agent on one task. Running the same command again resumes an unfinished",
            "run and skips a finished one. Arguments are written as key=value, --key=value or",
            "--key value; --key alone means true. Numbers may be written as 100_000 or 1e5.",
            "",
            "To train one multi-task agent from a dataset: task=mt80 data=DIR (see data= --help).",
            "",
            "Ctrl-C and SIGTERM stop the run at once, without a checkpoint; the same command then",
            "resumes it from the last checkpoint. SIGUSR2 finishes the episode, saves a checkpoint",
            "and stops. In a SLURM job, SIGTERM does the same, but stops after 20 s at the latest.",
            *cli.RUN_EXIT_CODES,
            "",
            "Runs of a launch:",
            cli.describe_fields(FileOptions),
            "",
            "Identity of the run:",
            cli.describe_fields(SpecOptions),
            cli.describe_fields(TaskSwitches),
            "",
            "Options outside the identity of the run:",
            cli.describe_fields(RunOptions),
            "",
            f"Hyperparameters of {method} (part of the run's identity; method=NAME --help lists",
            "those of another method):",
            cli.describe_fields(config_class(method)),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 completed, 1 diverged."""
    specs, options = parse(arguments)
    results = train(specs, options)
    for result in results:
        print(result.sentence("update" if specs[0].tasks else "env step"))
    return 1 if any(result.state == "DIVERGED" for result in results) else 0


def train(specs: Sequence[RunSpec], options: spec_file.Options) -> list[RunResult]:
    """Train one run, several seeds as one batch, or a multi-task agent from a dataset.

    Args:
        specs: runs that differ only in their seed.
        options: options of all of them.

    Returns:
        The result of each run. Of several processes that train one multi-task agent, only the
        first has it.

    Raises:
        UserError: run directories or a dataset that cannot be used, or runs of a pretrained model.
        StoppedError: a signal stopped a run.
    """
    if specs[0].start:
        raise UserError(
            f"{specs[0].task}: a run that starts from a pretrained model; use tdmpc2/finetune.py"
        )
    # The runners import torch, so they are imported after the arguments have been checked.
    if isinstance(options, OfflineOptions):
        from tdmpc2.runners.offline import run_offline

        results = (run_offline(spec, options) for spec in specs)
        return [result for result in results if result is not None]
    from tdmpc2.runners.online import run_seeds

    return run_seeds(specs, options)


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: usage(sys.argv[1:])))
