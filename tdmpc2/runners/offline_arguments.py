"""Arguments of `tdmpc2/train.py` for training from a dataset (`data=DIR`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdmpc2.common.run.spec import OfflineOptions, RunSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.physics import Physics
from tdmpc2.runners.registry import (
    MULTITASK_METHODS,
    OFFLINE_UPDATES,
    config_class,
    make_offline_spec,
)

if TYPE_CHECKING:
    from tdmpc2.data.dataset import Dataset

EVAL_EVERY = 100_000
SPEC_OPTIONS: dict[str, Any] = {
    "method": str,
    "task": str,
    "seed": int,
    "num_updates": int,
    "variant": str | None,
    "physics": Physics,
}


def is_meant(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of the train command select training from a dataset."""
    return not {"data", "num_updates"}.isdisjoint(cli.split_arguments(arguments))


def parse(arguments: Sequence[str]) -> tuple[RunSpec, OfflineOptions, Dataset]:
    """Parse `key=value` arguments into the run, its options and its dataset.

    Raises:
        UserError: an unknown key, task or method, a value out of range, or no such dataset.
    """
    pairs = cli.split_arguments(arguments)
    method = pairs.get("method", "tdmpc2")
    config_schema = cli.schema_of(config_class(method))
    options_schema = cli.schema_of(OfflineOptions)
    values = cli.parse_arguments(arguments, {**SPEC_OPTIONS, **options_schema, **config_schema})
    if "task" not in values:
        raise UserError("task= is missing; name a task set, e.g. task=mt30")
    options = OfflineOptions(**{k: values[k] for k in options_schema if k in values})
    if options.data is None:
        raise UserError(
            "data= is missing; name the folder of a dataset (python -m tdmpc2.data --help)"
        )
    from tdmpc2.data.dataset import Dataset  # here, because it imports NumPy

    dataset = Dataset.open(options.data)
    spec = make_offline_spec(
        method,
        values["task"],
        values.get("seed", 1),
        dataset.checksum,
        num_updates=values.get("num_updates", OFFLINE_UPDATES),
        variant=values.get("variant"),
        overrides={k: values[k] for k in config_schema if k in values},
        physics=values.get("physics", "paper"),
    )
    dataset.require(spec.tasks)
    return spec, options, dataset


def usage(method: str) -> str:
    """Return the text of `--help` for training from a dataset.

    It includes the hyperparameters of one method.
    """
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASKS data=DIR [key=value …]",
            "",
            "Trains one multi-task agent from a dataset; environments are used for evaluation",
            "only. Running the same command again resumes an unfinished run and skips a finished",
            "one; a larger num_updates= continues a finished one. On several GPUs:",
            "  torchrun --nproc-per-node=4 tdmpc2/train.py task=mt80 data=DIR …",
            "",
            "Ctrl-C and SIGTERM stop the run at once, without a checkpoint. SIGUSR2, and SIGTERM",
            "in a SLURM job, save a checkpoint first, except during an evaluation. The same",
            "command then resumes the run from its last checkpoint.",
            "Exit code: 0 completed, 1 diverged, 2 invalid input or disk full, 130 stopped.",
            "",
            "Identity of the run:",
            "  task=                                      mt30, mt80, another suite, or several",
            "                                             tasks separated by commas",
            f"  method=tdmpc2                              {' | '.join(MULTITASK_METHODS)}",
            "  seed=1                                     seed of all random numbers",
            f"  num_updates={OFFLINE_UPDATES:<31,}budget in gradient steps",
            "  variant=                                   name of these settings; default: derived",
            "  physics=paper                              of evaluations: paper | simulator",
            "",
            "Options that influence results by round-off only:",
            cli.describe_fields(OfflineOptions),
            "",
            f"Hyperparameters of {method} (part of the run's identity; for multi-task agents the",
            "defaults of task_dim and batch_size are 96 and 1024):",
            cli.describe_fields(config_class(method)),
        ]
    )
