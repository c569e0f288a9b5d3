"""Build a model from an official checkpoint and the names of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tdmpc2.checkpoints.architecture import Architecture, detect
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.official import constants, import_official, key_format, official_name
from tdmpc2.checkpoints.task_sets import env_of, recognize
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.task_sets import parse_tasks


def model_of_official(
    path: Path, state: Mapping[str, Any], tasks: str | None, *, any_size: bool = False
) -> Model:
    """Build a model from an official state dict.

    Args:
        path: path of the file, for messages and provenance.
        state: contents of the file.
        tasks: see `parse_tasks`; None to recognize a published task set.
        any_size: whether to accept an architecture that is none of the model sizes.

    Raises:
        UserError: the architecture is unknown, the tasks do not fit it, or weights are not
            finite.
    """
    try:
        weights = {name: value.float() for name, value in import_official(state).items()}
        architecture = detect(weights, shown_by(state))
        if architecture.size is None and not any_size:
            raise UserError(f"{architecture.oddity} (use any_size=true to accept it)")
        stored = constants(state)
        name = tasks or _recognized(architecture)
        env = env_of(parse_tasks(name), architecture, stored)
        log_std = {}
        if stored.log_std is not None:
            log_std = dict(zip(("log_std_min", "log_std_max"), stored.log_std, strict=True))
        config = architecture.config(**log_std)
        _refuse_non_finite(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    facts: dict[str, Any] = {
        "origin": "official",
        "source": path.name,
        "sha256": sha256_of(path),
        "keys": key_format(state),
        "task": name,
        "recognized": tasks is None,
        "obs": "state",
        "assets": None,
        "protocol": {},
    }
    return Model(config, env, weights, facts)


def shown_by(state: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a function that maps a weight's name to the name in the file."""
    keys = key_format(state) or "new"
    return lambda name: official_name(name, keys) or name


def _recognized(architecture: Architecture) -> str:
    if architecture.num_tasks is None:
        raise UserError("a single-task model that does not contain its task: give it with task=")
    name = recognize(architecture)
    if name is None:
        raise UserError(
            f"a model of {architecture.num_tasks} unknown tasks: list them, in the order of its "
            "task embedding"
        )
    return name


def _refuse_non_finite(weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"weights '{name}' contain NaN or Inf")
