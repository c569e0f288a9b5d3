"""Few-shot finetuning of a multi-task model: `python tdmpc2/finetune.py checkpoint=… task=…`.

All parameters are trained online on one new task, from an empty replay buffer and with the
single-task hyperparameters (paper, Section 4.4 and Appendix E), except those that were changed for
the model. The embedding of the new task is
initialized with that of a similar task of the model. Until the first update the pretrained agent
acts (`seed_with=agent`), as in the authors' later code. Their code of these experiments is not
released.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2.common.run.spec import RunOptions, RunSpec, chosen_seeds, overrides_of, variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import (
    REQUIRED,
    SEED,
    STEPS,
    Kind,
    Settings,
    kinds_of,
    setting,
)
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.tasks import get_suite, get_task, list_tasks
from tdmpc2.runners.registry import make_config
from tdmpc2.runners.specs import make_spec

if TYPE_CHECKING:
    from torch import Tensor

    from tdmpc2.agent import TDMPC2
    from tdmpc2.checkpoints.model import Model

HELD_OUT: Mapping[str, str] = {
    "hopper-hop-backwards": "hopper-hop",
    "reacher-three-easy": "reacher-easy",
    "reacher-three-hard": "reacher-hard",
    "cup-spin": "cup-catch",
    "pendulum-spin": "pendulum-swingup",
    "mw-bin-picking": "mw-pick-place",
    "mw-box-close": "mw-assembly",
    "mw-door-lock": "mw-door-open",
    "mw-door-unlock": "mw-door-open",
    "mw-hand-insert": "mw-sweep-into",
}
"""Held-out task → task whose embedding initializes its own, for a model trained on the other 70
tasks of mt80. The paper shows the ten held-out tasks in a figure but does not list them; here they
are the last five of each domain in the order of mt80. The source tasks are plausible choices."""

ARCHITECTURE = (
    *("model_size", "enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_channels", "num_q"),
    *("task_dim", "num_bins", "vmin", "vmax", "latent_norm", "simnorm_dim", "hidden_norm"),
    *("regression", "policy_prior", "entropy_tuning"),
)
"""Hyperparameters that decide what weights a model has, or what its outputs mean."""
ENV_STEPS = 20_000
RANDOM = "random"


@dataclass(frozen=True)
class SpecOptions(Settings):
    """Options that select the runs; with the hyperparameters, their identity."""

    checkpoint: Path = setting(
        REQUIRED, "run directory of train.py data=…, or file of python -m tdmpc2.checkpoints"
    )
    task: str = setting(
        REQUIRED,
        "one or more tasks, comma-separated, or held-out: all tasks of mt80 that are new to the "
        "model",
    )
    checkpoint_tasks: str | None = setting(
        None, "tasks of an official model file, in the order of its task embedding"
    )
    init_embedding: str | None = setting(
        None,
        f"task of the model whose embedding is copied, or {RANDOM}; default: the task itself, or "
        "its source in the table below",
    )
    env_steps: int = setting(ENV_STEPS, "budget", STEPS)
    seed: int = setting(1, "seed of all random numbers", SEED)
    seeds: str | None = setting(
        None, "instead of seed=: a count (3) or a list (1,2,5) of seeds, trained one by one"
    )
    variant: str | None = setting(
        None, "name of these settings; default: finetuned, and the settings that are not defaults"
    )


def source_of(task: str, model: Model, wanted: str | None) -> str:
    """Return the task of the model whose embedding initializes that of a new task, or `random`.

    Args:
        task: task to learn.
        model: multi-task model, trained on this task or not.
        wanted: value of `init_embedding=`. None selects the task itself if the model was trained
            on it, else its source in `HELD_OUT`.

    Raises:
        UserError: the model was not trained on that task, or the task has no default source.
    """
    model_tasks = model.env.task_names
    if wanted is None:
        wanted = task if task in model_tasks else HELD_OUT.get(task)
    if wanted is None:
        raise UserError(
            f"init_embedding= is missing; name the task of the model whose embedding initializes "
            f"that of {task}, or use init_embedding={RANDOM}"
        )
    if wanted == RANDOM:
        return RANDOM
    name = get_task(wanted).name
    if name not in model_tasks:
        raise UserError(
            f"init_embedding={name}: not a task of the model{did_you_mean(name, model_tasks)}; "
            f"name one of its {len(model_tasks)} tasks, or use init_embedding={RANDOM}"
        )
    return name


def finetune_spec(
    model: Model,
    task: str,
    seed: int,
    *,
    init_embedding: str | None = None,
    env_steps: int = ENV_STEPS,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "cuda",
) -> RunSpec:
    """Return a validated `RunSpec` that finetunes a multi-task model on one task.

    Args:
        model: multi-task model to finetune.
        task: task to learn.
        seed: seed of all random numbers; the model's weights do not depend on it.
        init_embedding: source of the task's embedding; see `source_of`.
        env_steps: budget in control steps.
        variant: name of the set of overrides; None derives `finetuned` or `finetuned-random`,
            followed by the overrides that are not the defaults.
        overrides: hyperparameters of training and planning. Their defaults are those of a single
            task, but the values that were changed for the model stay. `precision` is that of the
            model, but float32 instead of TF32 on a CPU.
        device: type of the device of the run, `cpu` or `cuda`.

    Raises:
        UserError: the model is a single-task model, the task's observations or actions do not fit
            the model, an override would change the architecture, or a value is invalid.
    """
    import torch

    from tdmpc2.common.numerics.numeric_path import usable_precision
    from tdmpc2.common.run.storable import sha256_of_tensors
    from tdmpc2.envs.multitask import padded_spec

    if not model.multitask or len(model.env.obs_shape) != 1:
        raise UserError(
            f"{model.facts.get('source')}: a single-task model; a multi-task model is needed"
        )
    row = get_task(task)
    start: dict[str, Any] = {
        "weights": sha256_of_tensors(model.weights)[:12],
        "obs_dim": model.env.obs_shape[0],
        "action_dim": model.env.action_dim,
        "episodic": model.env.episodic,
    }
    padded_spec(row, start)  # raises UserError if the task does not fit the model
    source = start["embedding"] = source_of(row.name, model, init_embedding)
    clash = sorted(set(ARCHITECTURE) & set(overrides or {}))
    if clash:
        value = getattr(model.config, clash[0])
        raise UserError(f"{clash[0]}: fixed by the model ({value}); leave it out")
    inherited = _inherited(model.config)
    inherited["precision"] = usable_precision(torch.device(device), model.config.precision)
    default = make_config("tdmpc2", {**inherited, "seed_with": "agent"})
    own = overrides_of(make_config("tdmpc2", {**vars(default), **(overrides or {})}), default)
    name = "finetuned" if source != RANDOM else "finetuned-random"
    return make_spec(
        "tdmpc2",
        row.name,
        seed,
        env_steps=env_steps,
        variant=variant or (f"{name}+{variant_name(own)}" if own else name),
        overrides={**inherited, "seed_with": "agent", **(overrides or {})},
        start=start,
    )


def _inherited(config: TDMPC2Config) -> dict[str, Any]:
    """Return the fields of a model's config that differ from the single-task defaults.

    The batch size is excluded, as finetuning uses that of a single task, and so is the precision.
    """
    default = TDMPC2Config.make(model_size=config.model_size)
    own = ("batch_size", "precision")
    changed = {k: v for k, v in overrides_of(config, default) if k not in own}
    return {**changed, "model_size": config.model_size}


def begin_with(model: Model, source: str, agent: TDMPC2) -> None:
    """Load the weights of a multi-task model into the agent of one task.

    Args:
        model: multi-task model that provides the weights.
        source: task whose embedding is copied, or `random` to keep the agent's own random one.
        agent: a newly created agent.
    """
    weights: dict[str, Tensor] = dict(model.weights)
    table, own = weights["task_embedding"], agent.model.task_embedding
    assert own is not None
    if source == RANDOM:
        weights["task_embedding"] = own.detach()
    else:
        index = model.env.task_names.index(source)
        weights["task_embedding"] = table[index : index + 1]
    agent.model.load_state_dict(weights)


def schema(arguments: Sequence[str] = ()) -> dict[str, Kind]:
    """Return the kind of each option and setting."""
    return {**kinds_of(SpecOptions), **_run_options(), **kinds_of(TDMPC2Config)}


def _run_options() -> dict[str, Kind]:
    """Return the options of the runs; `checkpoint` names that of the model instead."""
    return {k: v for k, v in kinds_of(RunOptions).items() if k != "checkpoint"}


def parse(arguments: Sequence[str]) -> tuple[Model, list[list[RunSpec]], RunOptions]:
    """Parse `key=value` arguments.

    Returns:
        The model, one list of run specifications (one per seed) for each task, and the options.

    Raises:
        UserError: an unknown key, task or checkpoint, or a value out of range.
    """
    values = cli.parse_arguments(arguments, schema())
    chosen = cli.build(SpecOptions, values)
    options = cli.build(RunOptions, {k: v for k, v in values.items() if k in _run_options()})
    seeds = chosen_seeds(values)
    from tdmpc2.checkpoints.model_file import load_model
    from tdmpc2.common.numerics.torch_setup import choose_device

    device = choose_device(options.device).type
    model = load_model(chosen.checkpoint, tasks=chosen.checkpoint_tasks)
    specs = [
        [
            finetune_spec(
                model,
                task,
                seed,
                init_embedding=chosen.init_embedding,
                env_steps=chosen.env_steps,
                variant=chosen.variant,
                overrides={k: values[k] for k in kinds_of(TDMPC2Config) if k in values},
                device=device,
            )
            for seed in seeds
        ]
        for task in _tasks(chosen.task, model)
    ]
    return model, specs, options


def _tasks(text: str, model: Model) -> list[str]:
    """Return the names in `task=`; `held-out` stands for the tasks of mt80 new to the model.

    Raises:
        UserError: the model was trained on all of mt80 or on none of it.
    """
    if text == "held-out":
        seen = set(model.env.task_names)
        unseen = [task.name for task in get_suite("mt80") if task.name not in seen]
        if not 0 < len(unseen) < len(get_suite("mt80")):
            raise UserError(
                "task=held-out: the model was trained on all tasks of mt80 or on none; "
                "name the tasks instead"
            )
        return unseen
    return [task.name for task in list_tasks(text, "task")]


def usage() -> str:
    """Return the text of `--help`."""
    listed = "\n".join(f"  {task:<24} {source}" for task, source in HELD_OUT.items())
    return "\n".join(
        [
            "usage: python tdmpc2/finetune.py checkpoint=PATH task=TASK [key=value …]",
            "",
            "Finetunes all parameters of a multi-task model online on one new task, from an empty",
            "replay buffer. Running the same command again resumes an unfinished run. The same",
            "task from scratch, to compare with:",
            "  python tdmpc2/train.py task=TASK model_size=… env_steps=20000",
            "",
            "Ctrl-C, SIGTERM and SIGUSR2 work as for train.py (see its --help).",
            *cli.RUN_EXIT_CODES,
            "",
            "Identity of the run:",
            cli.describe_fields(SpecOptions),
            "",
            "Held-out tasks and the tasks whose embeddings initialize theirs:",
            listed,
            "",
            "Options outside the identity of the run:",
            cli.describe_fields(RunOptions, without=["checkpoint"]),
            "",
            "Hyperparameters of training and planning (part of the run's identity). Those of the",
            "architecture are fixed by the model. Values that were changed for the model are the",
            "defaults here, except batch_size; the default of seed_with is agent:",
            cli.describe_fields(TDMPC2Config, without=ARCHITECTURE),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 completed, 1 diverged."""
    model, tasks, options = parse(arguments)
    from tdmpc2.runners.online import run_seeds

    diverged = False
    for specs in tasks:
        initial = partial(begin_with, model, str(dict(specs[0].start)["embedding"]))
        for spec in specs:
            (result,) = run_seeds([spec], options, initial)
            print(result.sentence("env step"))
            diverged |= result.state == "DIVERGED"
    return 1 if diverged else 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
