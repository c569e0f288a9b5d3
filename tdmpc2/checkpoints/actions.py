"""Actions of `python -m tdmpc2.checkpoints` that read models; importing them imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.description import describe
from tdmpc2.checkpoints.evaluation import TaskResult, choose_tasks, evaluate_tasks
from tdmpc2.checkpoints.exporting import export_model
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import agent_of, load_model, save_model
from tdmpc2.checkpoints.options import (
    EvaluateOptions,
    ExportOptions,
    ImportOptions,
    InspectOptions,
)
from tdmpc2.checkpoints.reading import check_target, make_room
from tdmpc2.common.numerics.numeric_path import numeric_path, usable_precision
from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch
from tdmpc2.common.system.atomic_files import write_json


def inspect(options: InspectOptions) -> None:
    """Print the facts about a model."""
    facts = describe(options.file)
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def import_model(options: ImportOptions) -> None:
    """Write a model as a model file of this project."""
    check_target(options.out)
    model = load_model(options.file, tasks=options.task, any_size=options.any_size)
    save_model(options.out, model)
    print(f"{options.out}: {_title(model)}")


def export(options: ExportOptions) -> None:
    """Write a model in an official format or as safetensors."""
    check_target(options.out)
    model = load_model(options.file, tasks=options.task, any_size=options.any_size)
    missing_settings = export_model(model, options.out, options.format)
    print(f"{options.out}: {_title(model)}, format {options.format}")
    if missing_settings:
        print(
            "the file does not contain these settings, which its reader has to set: "
            f"{', '.join(missing_settings)}"
        )


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate a model on its tasks and print the results."""
    if options.out is not None:
        make_room(options.out)
    model = load_model(
        options.file, tasks=options.tasks, single=options.task, any_size=options.any_size
    )
    chosen = choose_tasks(model, options.task)
    agent = _agent(model, options)
    print(_title(model))
    print(f"{'task':<28}{'return':>10}{'± sd':>10}{'success':>10}{'score':>10}")
    results = []
    for result in evaluate_tasks(
        *(model, agent, chosen),
        episodes=options.episodes,
        seed=options.seed,
        workers=options.workers,
    ):
        results.append(result)
        print(_line(result), flush=True)
    mean = sum(result.score for result in results) / len(results)
    if len(results) > 1:
        print(f"{f'mean of {len(results)} tasks':<58}{mean:>10.1f}")
    if options.out is not None:
        facts = {**model.facts, "file": str(options.file), "seed": options.seed, "score": mean}
        write_json(options.out, {**facts, "tasks": [result.row() for result in results]})


def _agent(model: Model, options: EvaluateOptions) -> TDMPC2:
    """Return an agent of the model on the requested device, after setting up torch."""
    device = choose_device(options.device)
    agent = agent_of(model, device=device, seed=options.seed)
    precision = usable_precision(device, model.config.precision)
    numeric = numeric_path(device, options.threads, compiled=options.compile, precision=precision)
    set_up_torch(numeric)
    if numeric["compile"]:
        acceleration.install(agent)
    return agent


def _line(result: TaskResult) -> str:
    outcome = result.outcome
    return (
        f"{result.task.name:<28}{outcome.mean_return:>10.2f}{outcome.sd_return:>10.2f}"
        f"{outcome.successes.mean():>10.2f}{result.score:>10.1f}"
    )


def _title(model: Model) -> str:
    """Return a one-line description of the model."""
    names = model.env.task_names
    tasks = f"{len(names)} tasks" if len(names) > 1 else names[0]
    guess = f", recognized as {model.facts.get('task')}" if model.facts.get("recognized") else ""
    return f"TD-MPC2 of size {model.config.model_size} on {tasks}{guess}"


ACTIONS: dict[str, Callable[[Any], None]] = {
    "inspect": inspect,
    "import": import_model,
    "export": export,
    "evaluate": evaluate,
}
