"""Arguments of `tdmpc2/train.py` for training from a dataset (`data=DIR`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdmpc2.common.run.spec import OfflineOptions, RunSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import (
    REQUIRED,
    SEED,
    STEPS,
    Kind,
    Settings,
    setting,
)
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import DATASET_QUIRKS, MULTITASK_BATCH, MULTITASK_DIM
from tdmpc2.envs.physics import Physics
from tdmpc2.runners.registry import config_class, multitask_methods
from tdmpc2.runners.specs import OFFLINE_UPDATES, make_offline_spec

if TYPE_CHECKING:
    from tdmpc2.data.dataset import Dataset


@dataclass(frozen=True)
class SpecOptions(Settings):
    """Options that select a run; with the hyperparameters, its identity."""

    task: str = setting(
        REQUIRED, "mt30, mt80, another suite, or several tasks separated by commas, e.g. task=mt30"
    )
    method: str = setting("tdmpc2", " | ".join(multitask_methods()))
    seed: int = setting(1, "seed of all random numbers", SEED)
    num_updates: int = setting(OFFLINE_UPDATES, "budget in gradient steps", STEPS)
    variant: str | None = setting(None, "name of these settings; default: derived")
    physics: Physics = setting("paper", "physics of evaluations")


def is_meant(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of the train command select training from a dataset."""
    return any(cli.peek(arguments, key) is not None for key in ("data", "num_updates"))


def schema(arguments: Sequence[str]) -> Mapping[str, Kind]:
    """Return the kind of each option and setting; `method=` decides which settings there are."""
    config = config_class(cli.peek(arguments, "method") or "tdmpc2")
    return cli.schema_of(SpecOptions, OfflineOptions, config)


def parse(arguments: Sequence[str]) -> tuple[RunSpec, OfflineOptions]:
    """Parse `key=value` arguments into the run and its options.

    Raises:
        UserError: an unknown key, task or method, a value out of range, or no such dataset.
    """
    values = cli.parse_arguments(arguments, schema(arguments))
    chosen, options = cli.build(SpecOptions, values), cli.build(OfflineOptions, values)
    dataset = _open(options)
    spec = make_offline_spec(
        chosen.method,
        chosen.task,
        chosen.seed,
        dataset.checksum,
        num_updates=chosen.num_updates,
        variant=chosen.variant,
        overrides={k: values[k] for k in cli.schema_of(config_class(chosen.method)) if k in values},
        physics=chosen.physics,
    )
    dataset.require(spec.tasks)
    return spec, options


def dataset_of(spec: RunSpec, options: OfflineOptions) -> Dataset:
    """Return the dataset that a run trains from.

    Raises:
        UserError: it is missing, lacks a task of the run, or is another one than that of the run.
    """
    dataset = _open(options)
    if dataset.checksum != spec.dataset:
        raise UserError(
            f"{dataset.folder}: has the checksum {dataset.checksum}, but the run trains from a "
            f"dataset with the checksum {spec.dataset}; name its folder with data="
        )
    dataset.require(spec.tasks)
    return dataset


def _open(options: OfflineOptions) -> Dataset:
    if options.data is None:
        raise UserError(
            "data= is missing; name the folder of a dataset (python -m tdmpc2.data --help)"
        )
    from tdmpc2.data.dataset import Dataset

    return Dataset.open(options.data)


def _quirks() -> list[str]:
    """Return the defaults of `DATASET_QUIRKS`, one line per dataset and model size."""
    lines = [
        f"for task={dataset} model_size={size}: " + " ".join(f"{k}={v}" for k, v in own.items())
        for (dataset, size), own in DATASET_QUIRKS.items()
    ]
    return [*(f"{line}," for line in lines[:-1]), f"{lines[-1]}):"]


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
            "in a SLURM job, save a checkpoint first; in an evaluation it holds the finished",
            "rounds. The same command then resumes the run from its last checkpoint.",
            *cli.RUN_EXIT_CODES,
            "",
            "Identity of the run:",
            cli.describe_fields(SpecOptions),
            "",
            "Options outside the identity of the run:",
            cli.describe_fields(OfflineOptions),
            "",
            f"Hyperparameters of {method} (part of the run's identity; for multi-task agents the",
            f"defaults of task_dim and batch_size are {MULTITASK_DIM} and {MULTITASK_BATCH}"
            + ("):" if method != "tdmpc2" else ";"),
            *(_quirks() if method == "tdmpc2" else ()),
            cli.describe_fields(config_class(method)),
        ]
    )
