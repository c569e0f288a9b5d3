"""Few-shot finetuning of a model of many tasks: `python tdmpc2/finetune.py checkpoint=… task=…`.

All of the model is trained online, from an empty memory and with the hyperparameters of a single
task (paper, Section 4.4 and Appendix E); only the task's embedding begins elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import load_model
from tdmpc2.common.run.checkpoint import sha256_of_tensors
from tdmpc2.common.run.spec import RunOptions, RunSpec, chosen_seeds, overrides_of, variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import StoppedError, UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import padded_spec
from tdmpc2.envs.tasks import get_suite, get_task
from tdmpc2.runners.online import run_seeds
from tdmpc2.runners.registry import make_spec

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
"""Tasks that a model of the other 70 of mt80 has not seen, and those whose embedding they begin
with. The paper shows the ten in a figure and does not list them: they are the last five of each
domain in the order of mt80, and the sources are likely ones."""

ENV_STEPS = 20_000
RANDOM = "random"
SPEC_OPTIONS: dict[str, Any] = {
    "checkpoint": Path,
    "checkpoint_tasks": str | None,
    "task": str,
    "init_embedding": str | None,
    "seed": int,
    "seeds": str | None,
    "env_steps": int,
    "variant": str | None,
}


def source_of(task: str, model: Model, wanted: str | None) -> str:
    """The task of the model whose embedding a new task begins with, or `random`.

    Args:
        task: that is learned.
        model: of other tasks, or of this one among others.
        wanted: what the user said; None for the task itself, or its source in `HELD_OUT`.

    Raises:
        UserError: the model knows no such task.
    """
    known = model.env.task_names
    if wanted is None:
        wanted = task if task in known else HELD_OUT.get(task)
    if wanted is None:
        raise UserError(
            f"init_embedding= is missing: a task of the model whose embedding {task} begins with, "
            f"or init_embedding={RANDOM}"
        )
    if wanted == RANDOM:
        return RANDOM
    name = get_task(wanted).name
    if name not in known:
        raise UserError(
            f"init_embedding={name}: the model knows no such task{did_you_mean(name, known)}; "
            f"name one of its {len(known)}, or say init_embedding={RANDOM}"
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
) -> RunSpec:
    """A checked `RunSpec` of learning one task from a model of several.

    Args:
        model: to go on from.
        task: to learn.
        seed: of everything random, but for the model.
        init_embedding: see `source_of`.
        env_steps: budget.
        variant: name of the set of overrides; `finetuned` with what else is set, if None.
        overrides: settings of learning and planning.

    Raises:
        UserError: a model of one task, one that the task does not fit, or bad settings.
    """
    if not model.multitask or len(model.env.obs_shape) != 1:
        raise UserError(f"{model.facts['source']}: a model of one task; one of several is needed")
    row = get_task(task)
    start: dict[str, Any] = {
        "weights": sha256_of_tensors(model.weights)[:12],
        "obs_dim": model.env.obs_shape[0],
        "action_dim": model.env.action_dim,
        "episodic": model.env.episodic,
    }
    padded_spec(row, start)  # refuses what does not fit
    source = start["embedding"] = source_of(row.name, model, init_embedding)
    fixed = _architecture(model.config)
    clash = sorted(set(fixed) & set(overrides or {}))
    if clash:
        raise UserError(f"{clash[0]}: is the model's own, {fixed[clash[0]]}")
    own = tuple(sorted((overrides or {}).items()))
    name = "finetuned" if source != RANDOM else "finetuned-random"
    return make_spec(
        "tdmpc2",
        row.name,
        seed,
        env_steps=env_steps,
        variant=variant or (f"{name}+{variant_name(own)}" if own else name),
        overrides={**fixed, **(overrides or {})},
        start=start,
    )


def _architecture(config: TDMPC2Config) -> dict[str, Any]:
    """Fields of a model's config that are not those of one task's, but for the batch size."""
    default = TDMPC2Config.make(model_size=config.model_size)
    changed = {k: v for k, v in overrides_of(config, default) if k != "batch_size"}
    return {**changed, "model_size": config.model_size}


def begin_with(model: Model, source: str, agent: Any) -> None:
    """Gives an agent of one task the weights of a model of several.

    Args:
        model: whose weights they are.
        source: task whose embedding it takes, or `random` for the one it was made with.
        agent: a `TDMPC2`, freshly made.
    """
    assert isinstance(agent, TDMPC2)
    weights: dict[str, Tensor] = dict(model.weights)
    table, own = weights["task_embedding"], agent.model.task_embedding
    assert own is not None
    if source == RANDOM:
        weights["task_embedding"] = own.detach()
    else:
        place = model.env.task_names.index(source)
        weights["task_embedding"] = table[place : place + 1]
    agent.model.load_state_dict(weights)


def parse(arguments: Sequence[str]) -> tuple[Model, list[list[RunSpec]], RunOptions]:
    """Turns `key=value` arguments into the model, the runs of each task, and how to run them.

    Raises:
        UserError: unknown key, task or checkpoint, or a value out of range.
    """
    config_schema, options_schema = cli.schema_of(TDMPC2Config), cli.schema_of(RunOptions)
    values = cli.parse_arguments(arguments, {**options_schema, **config_schema, **SPEC_OPTIONS})
    for name, example in (("checkpoint", "a run directory or a file"), ("task", "held-out")):
        if name not in values:
            raise UserError(f"{name}= is missing, e.g. {example}")
    seeds = chosen_seeds(values)
    model = load_model(values["checkpoint"], tasks=values.get("checkpoint_tasks"))
    options = RunOptions(
        **{k: values[k] for k in options_schema if k in values and k != "checkpoint"}
    )
    specs = [
        [
            finetune_spec(
                model,
                task,
                seed,
                init_embedding=values.get("init_embedding"),
                env_steps=values.get("env_steps", ENV_STEPS),
                variant=values.get("variant"),
                overrides={k: values[k] for k in config_schema if k in values},
            )
            for seed in seeds
        ]
        for task in _tasks(values["task"], model)
    ]
    return model, specs, options


def _tasks(text: str, model: Model) -> list[str]:
    """Names of tasks; `held-out` are those of mt80 that the model has not seen."""
    if text == "held-out":
        seen = set(model.env.task_names)
        unseen = [task.name for task in get_suite("mt80") if task.name not in seen]
        if not 0 < len(unseen) < len(get_suite("mt80")):
            raise UserError("task=held-out: the model has seen all of mt80, or none of it")
        return unseen
    return [get_task(name.strip()).name for name in text.split(",") if name.strip()]


def usage() -> str:
    """Text of `--help`."""
    listed = "\n".join(f"  {task:<24} {source}" for task, source in HELD_OUT.items())
    return "\n".join(
        [
            "usage: python tdmpc2/finetune.py checkpoint=PATH task=TASK [key=value …]",
            "",
            "Trains a model of several tasks on another one, online: all of the model, from an",
            "empty memory. The same command again resumes an unfinished run. To compare it with,",
            "the same from scratch: python tdmpc2/train.py task=TASK model_size=… env_steps=20000",
            "",
            "What to run:",
            "  checkpoint=                                a run directory of train.py data=…, or a",
            "                                             file (python -m tdmpc2.checkpoints)",
            "  checkpoint_tasks=                          those of an official file, in order",
            "  task=                                      one, several by commas, or held-out: all",
            "                                             of mt80 that the model has not seen",
            "  init_embedding=                            a task of the model, or random; default:",
            "                                             the task itself, or as listed below",
            f"  env_steps={ENV_STEPS:<33}budget",
            "  seed=1                                     of everything random, or seeds=3",
            "  variant=finetuned                          name of these settings",
            "",
            "Held-out tasks and where their embeddings begin:",
            listed,
            "",
            "How (no influence on results):",
            _described_options(),
            "",
            "Settings of learning and planning (each is part of the run's identity; those of the",
            "architecture are the model's):",
            cli.describe_fields(TDMPC2Config),
        ]
    )


def _described_options() -> str:
    """Those of a run, without the choice between its own checkpoints, whose name is taken here."""
    lines = cli.describe_fields(RunOptions).splitlines()
    return "\n".join(line for line in lines if not line.startswith("  checkpoint="))


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    model, tasks, options = parse(arguments)
    diverged = False
    for specs in tasks:
        initial = partial(begin_with, model, str(dict(specs[0].start)["embedding"]))
        for spec in specs:
            try:
                (record,) = run_seeds([spec], options, initial)
            except StoppedError as error:
                print(f"{error}; run the same command again to continue", file=sys.stderr)
                return 130
            print(record.sentence("env step"))
            diverged |= record.state == "DIVERGED"
    return 1 if diverged else 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
