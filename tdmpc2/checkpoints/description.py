"""Describe a checkpoint by its contents alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tdmpc2.checkpoints.architecture import Architecture, detect, num_parameters
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import load_model
from tdmpc2.checkpoints.official import key_format, split_official
from tdmpc2.checkpoints.official_file import shown_by
from tdmpc2.checkpoints.reading import read_weights
from tdmpc2.checkpoints.task_sets import FEW_SHOT_TASKS, fitting_tasks, recognize
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError

_KEYS = {"old": "old keys (2023)", "new": "new keys (2024 and later)"}
_SHOWN = 8  # names that a line of the description lists


def describe(path: Path) -> dict[str, str]:
    """Return facts of a checkpoint, in display order.

    Args:
        path: a run directory, one of its checkpoints, a model file, or an official checkpoint.

    Raises:
        UserError: the path cannot be read, or is not a TD-MPC2 model.
    """
    if path.is_file():
        contents = read_weights(path)
        if contents.about is None:
            return {**_file_facts(path), **_official_facts(path, contents.weights)}
        return {**_file_facts(path), **_model_facts(load_model(path), "model file")}
    model = load_model(path)
    return {"file": str(path), **_model_facts(model, "run of this project")}


def _file_facts(path: Path) -> dict[str, str]:
    size = path.stat().st_size / 1e6
    return {"file": f"{path} ({size:.1f} MB)", "sha256": sha256_of(path)}


def _official_facts(path: Path, state: Mapping[str, Any]) -> dict[str, str]:
    keys = key_format(state)
    weights, unknown = split_official(state)
    if keys is None:
        raise UserError(f"{path}: contains no Q-functions of a TD-MPC2 model")
    facts = {"format": f"official, {_KEYS[keys]}"}
    try:
        architecture = detect(weights, shown_by(state))
    except UserError as error:
        if not unknown:
            raise UserError(f"{path}: {error}") from None
        return facts | {"model": str(error), "unknown keys": _list(unknown)}
    facts |= _architecture_facts(architecture, weights)
    facts["tasks"] = _tasks(architecture)
    return facts | {"unknown keys": _list(unknown) if unknown else "none"}


def _model_facts(model: Model, form: str) -> dict[str, str]:
    recorded = model.facts
    origin = {
        "official": f"official checkpoint {recorded.get('source')}",
        "run": (
            f"run {recorded.get('source')} (variant {recorded.get('variant')}, seed "
            f"{recorded.get('run_seed')}), {recorded.get('step')} {recorded.get('step_unit')}"
        ),
    }.get(str(recorded.get("origin")), "unknown")
    facts = {
        "format": form,
        "origin": origin,
        "sha256 of the original file": str(recorded.get("sha256")),
    }
    if model.env.pixels:
        facts |= {
            "model": f"single-task, from pixels, size {model.config.model_size}",
            "parameters": _parameters(model.weights),
        }
    else:
        try:
            facts |= _architecture_facts(detect(model.weights), model.weights)
        except UserError:  # a variant of the model that the official code does not have
            kind = _kind(model.env.num_tasks if model.multitask else None)
            facts |= {
                "model": f"{kind}, size {model.config.model_size}, variant architecture",
                "parameters": _parameters(model.weights),
            }
    return facts | {"tasks": _list(model.env.task_names)}


def _kind(num_tasks: int | None) -> str:
    if num_tasks is None:
        return "single-task"
    return "one task with an embedding" if num_tasks == 1 else f"{num_tasks} tasks"


def _architecture_facts(
    architecture: Architecture, weights: Mapping[str, Tensor]
) -> dict[str, str]:
    kind = _kind(architecture.num_tasks)
    size = architecture.oddity if architecture.size is None else f"size {architecture.size}"
    if architecture.dataset is not None:
        size += f", as released for {architecture.dataset}"
    d = architecture.dimensions
    embedding = f", task embedding {d['task_dim']}" if d["task_dim"] else ""
    return {
        "model": f"{kind}, {size}",
        "parameters": _parameters(weights),
        "dimensions": (
            f"observation {architecture.obs_dim}, action {architecture.action_dim}, "
            f"latent {d['latent_dim']}, encoder {d['enc_dim']} ({d['num_enc_layers']} layers), "
            f"other networks {d['mlp_dim']}, {d['num_q']} Q-functions, {d['num_bins']} "
            f"bins{embedding}"
        ),
        "termination": "predicted" if architecture.episodic else "not predicted",
    }


def _parameters(weights: Mapping[str, Tensor]) -> str:
    return f"{num_parameters(weights):,} (without target networks)"


def _tasks(architecture: Architecture) -> str:
    """Return the possible tasks of an official checkpoint."""
    if architecture.num_tasks is None:
        fitting = fitting_tasks(architecture)
        return f"one of {_list(fitting)} (by shapes)" if fitting else "none of the task table"
    name = recognize(architecture)
    if name is not None:
        return f"{name} (by number and shapes)"
    if architecture.num_tasks == FEW_SHOT_TASKS:
        return f"mt80 without the ten held-out tasks (by number: {FEW_SHOT_TASKS})"
    return "unknown"


def _list(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
