"""Load any trained model: runs and model files of this project, and official checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.model import Model, describe_model, model_as_described
from tdmpc2.checkpoints.official import EMBEDDING
from tdmpc2.checkpoints.official_file import model_of_official
from tdmpc2.checkpoints.reading import FORMAT, check_target, read_weights, write_weights
from tdmpc2.checkpoints.runs import model_of_run
from tdmpc2.common.interfaces import SCHEDULES_OVER
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.task_sets import parse_tasks


def load_model(
    path: Path, *, tasks: str | None = None, single: str | None = None, any_size: bool = False
) -> Model:
    """Load a trained model.

    Args:
        path: a run directory or one of its checkpoints, a model file of this project, or an
            official checkpoint (old or new keys, `.pt` or `.safetensors`).
        tasks: tasks of an official checkpoint, which does not contain them: a task, a suite
            (`mt80`), or a list in the order of its task embedding; may be None for the published
            mt30 and mt80 models. Runs and model files contain their tasks, which must agree.
        single: the task of an official single-task checkpoint, used if `tasks` is None.
        any_size: whether to accept an official file whose shapes fit no model size.

    Returns:
        The model: configuration, shapes and tasks, weights, and facts.

    Raises:
        UserError: the path cannot be read, the run is of another method, or the tasks differ.
    """
    path = _folder_of_state(path)
    if path.is_dir():
        model = model_of_run(path)
    else:
        contents = read_weights(path)
        if contents.about is None:
            given = tasks if tasks or EMBEDDING in contents.weights else single
            return model_of_official(path, contents.weights, given, any_size=any_size)
        try:
            model = model_as_described(contents.about, contents.weights)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    _check_named(path, model, tasks)
    return model


def save_model(path: Path, model: Model) -> None:
    """Write a model file, `.pt` or `.safetensors`, that `load_model` reads.

    Raises:
        UserError: the suffix is wrong, or the file exists.
    """
    check_target(path)
    write_weights(path, model.weights, {"format": FORMAT, **describe_model(model)})


def load_agent(
    path: Path,
    *,
    tasks: str | None = None,
    any_size: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> TDMPC2:
    """Load an agent with the weights of a trained model; optimizers and value scale are new.

    Args:
        path: see `load_model`.
        tasks: see `load_model`.
        any_size: see `load_model`.
        device: device of the agent.
        seed: seed of the agent's generator.

    Raises:
        UserError: see `load_model`.
    """
    return agent_of(load_model(path, tasks=tasks, any_size=any_size), device=device, seed=seed)


def agent_of(model: Model, *, device: torch.device | str = "cpu", seed: int = 0) -> TDMPC2:
    """Return an agent with the weights of a model, which plans as at the end of its training.

    Args:
        model: the model.
        device: device of the agent.
        seed: seed of the agent's generator.
    """
    agent = TDMPC2(model.config, model.env, seed=seed, device=device)
    agent.model.load_state_dict(model.weights)
    counted = model.facts.get("step_unit") == "decisions"
    agent.decisions = int(model.facts["step"]) if counted else SCHEDULES_OVER
    return agent


def _folder_of_state(path: Path) -> Path:
    """Return the folder of the checkpoint if the path is its `state.pt`, else the path."""
    manifest = path.with_name("manifest.json")
    return path.parent if path.name == "state.pt" and manifest.is_file() else path


def _check_named(path: Path, model: Model, tasks: str | None) -> None:
    if tasks is None:
        return
    names = tuple(task.name for task in parse_tasks(tasks))
    if names != model.env.task_names:
        actual = ", ".join(model.env.task_names[:3]) + (" …" if model.env.num_tasks > 3 else "")
        raise UserError(f"{path}: a model of {actual}, not of {tasks}")
